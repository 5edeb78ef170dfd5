// Draws all tokens as points by WebGL: a buffer a frame, between two of which the card interpolates.
//
// Our own, because plotly's WebGL scatter would upload all points anew for every picture, and runs generated
// code, which the content security policy forbids.

const VERTEX = `#version 300 es
in vec2 from; in vec2 to; in vec4 colour;
uniform float part; uniform vec2 centre; uniform vec2 scale; uniform float size;
out vec4 shade;
void main() {
  gl_Position = vec4((mix(from, to, part) - centre) * scale, 0.0, 1.0);
  gl_PointSize = size;
  shade = colour;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 shade; out vec4 drawn;
uniform float opacity;
void main() {
  float edge = 1.0 - smoothstep(0.38, 0.5, length(gl_PointCoord - 0.5));
  if (edge == 0.0) discard;
  drawn = vec4(shade.rgb, edge * opacity);
}`;

function createRenderer(canvas, tokens) {
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: true, premultipliedAlpha: false });
  if (!gl) return null;
  const program = linked(gl);
  gl.useProgram(program);
  const place = (name) => gl.getUniformLocation(program, name);
  const uniforms = Object.fromEntries(["part", "centre", "scale", "size", "opacity"].map((name) => [name, place(name)]));
  const attributes = Object.fromEntries(["from", "to", "colour"].map((name) => [name, gl.getAttribLocation(program, name)]));
  const one = tokens.size * 2;
  const frames = tokens.frames.map((_, number) => filled(gl, gl.ARRAY_BUFFER, tokens.xy.subarray(number * one, (number + 1) * one)));
  const colours = gl.createBuffer();
  const order = gl.createBuffer();
  let shown = 0;
  Object.values(attributes).forEach((attribute) => gl.enableVertexAttribArray(attribute));
  gl.enable(gl.BLEND);
  gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA);

  return {
    setColours(bytes) {
      gl.bindBuffer(gl.ARRAY_BUFFER, colours);
      gl.bufferData(gl.ARRAY_BUFFER, bytes, gl.STATIC_DRAW);
    },
    // Ids in the order in which they are drawn.
    setShown(ids) {
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, order);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, ids, gl.STATIC_DRAW);
      shown = ids.length;
    },
    draw(camera, frame, size) {
      const ratio = canvas.width / camera.width;
      const first = Math.min(Math.floor(frame), frames.length - 1);
      const second = Math.min(first + 1, frames.length - 1);
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      point(gl, frames[first], attributes.from, gl.SHORT, 2);
      point(gl, frames[second], attributes.to, gl.SHORT, 2);
      point(gl, colours, attributes.colour, gl.UNSIGNED_BYTE, 4);
      gl.uniform1f(uniforms.part, frame - first);
      gl.uniform2f(uniforms.centre, camera.x, camera.y);
      gl.uniform2f(uniforms.scale, (2 * camera.scale) / camera.width, (2 * camera.scale) / camera.height);
      gl.uniform1f(uniforms.size, size * ratio);
      gl.uniform1f(uniforms.opacity, 0.8);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, order);
      gl.drawElements(gl.POINTS, shown, gl.UNSIGNED_INT, 0);
    },
  };
}

function linked(gl) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  return program;
}

function filled(gl, kind, numbers) {
  const buffer = gl.createBuffer();
  gl.bindBuffer(kind, buffer);
  gl.bufferData(kind, numbers, gl.STATIC_DRAW);
  return buffer;
}

function point(gl, buffer, attribute, type, size) {
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.vertexAttribPointer(attribute, size, type, true, 0, 0);
}
