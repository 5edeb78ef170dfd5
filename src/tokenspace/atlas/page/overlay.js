// What is written over the points: rings around the chosen token and its neighbours, and names where there is room.

const MOST_NAMES = 60;
const MOST_TRIED = 4000;

// `ids` are those that may be named, the most important first.
function drawOverlay(canvas, camera, tokens, placeOf, ids, chosen, neighbours) {
  const pen = canvas.getContext("2d");
  const ratio = canvas.width / camera.width;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, camera.width, camera.height);
  const ink = styleOf("--ink");
  const paper = styleOf("--card");
  const accent = styleOf("--chosen");
  const taken = [];
  pen.lineJoin = "round";

  const at = (id) => toScreen(camera, ...placeOf(id));
  const write = (id, font, colour, must) => {
    const [left, top] = at(id);
    if (left < 0 || top < 0 || left > camera.width || top > camera.height) return false;
    pen.font = font;
    const text = shortened(tokens.label(id));
    const width = pen.measureText(text).width;
    const turned = left + width + 10 > camera.width; // no room on the right
    const box = [turned ? left - width - 8 : left + 6, top - 8, width + 2, 16];
    if (!must && taken.some((other) => overlap(box, other))) return false;
    taken.push(box);
    pen.lineWidth = 3;
    pen.strokeStyle = paper;
    pen.fillStyle = colour;
    pen.strokeText(text, box[0] + 1, top + 4);
    pen.fillText(text, box[0] + 1, top + 4);
    return true;
  };

  if (chosen !== null && tokens.hasPlace[chosen]) {
    const [left, top] = at(chosen);
    pen.strokeStyle = accent;
    pen.globalAlpha = 0.35;
    pen.lineWidth = 1;
    for (const id of neighbours) {
      pen.beginPath();
      pen.moveTo(left, top);
      pen.lineTo(...at(id));
      pen.stroke();
    }
    pen.globalAlpha = 1;
    for (const id of neighbours) ring(pen, at(id), 4, accent, 1.5);
    ring(pen, [left, top], 7, accent, 2.5);
    write(chosen, "600 14px ui-monospace, monospace", accent, true);
    for (const id of neighbours) write(id, "12px ui-monospace, monospace", accent, false);
  }
  if (!state.names) return;
  let written = 0;
  for (let i = 0; i < ids.length && i < MOST_TRIED && written < MOST_NAMES; i++) {
    if (ids[i] !== chosen) written += write(ids[i], "11px ui-monospace, monospace", ink, false);
  }
}

// A cross in the middle, from where Enter takes the nearest token.
function markMiddle(canvas, { width, height }) {
  const pen = canvas.getContext("2d");
  const [x, y] = [width / 2, height / 2];
  pen.strokeStyle = styleOf("--accent");
  pen.lineWidth = 1.5;
  pen.beginPath();
  for (const [byX, byY] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    pen.moveTo(x + 4 * byX, y + 4 * byY);
    pen.lineTo(x + REACH * byX, y + REACH * byY);
  }
  pen.stroke();
}

function ring(pen, [left, top], radius, colour, width) {
  pen.beginPath();
  pen.arc(left, top, radius, 0, 2 * Math.PI);
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.stroke();
}

// First strong isolate and its end, so that right-to-left names do not turn what is beside them.
const shortened = (text) => `\u2068${text.length > 24 ? `${text.slice(0, 23)}…` : text}\u2069`;
const overlap = (a, b) => a[0] < b[0] + b[2] && b[0] < a[0] + a[2] && a[1] < b[1] + b[3] && b[1] < a[1] + a[3];
