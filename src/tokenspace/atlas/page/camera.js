// Where the map is looked at from: a place in the plane and pixels a unit. All frames share the plane, -1 to 1.

function createCamera() {
  return { x: 0, y: 0, scale: 300, width: 1, height: 1 };
}

const toScreen = (camera, x, y) => [(x - camera.x) * camera.scale + camera.width / 2, camera.height / 2 - (y - camera.y) * camera.scale];
const toPlane = (camera, left, top) => [(left - camera.width / 2) / camera.scale + camera.x, (camera.height / 2 - top) / camera.scale + camera.y];

function zoomAt(camera, left, top, factor) {
  const [x, y] = toPlane(camera, left, top);
  camera.scale = Math.min(2e6, Math.max(20, camera.scale * factor));
  const [nowX, nowY] = toPlane(camera, left, top);
  camera.x += x - nowX;
  camera.y += y - nowY;
}

// Fit the middle 99 hundredths of some places and what is near them: one far row does not make all others a dot.
function fit(camera, xs, ys) {
  if (!xs.length) return;
  const range = (values) => {
    const sorted = Float32Array.from(values).sort();
    const [low, high] = [sorted[Math.floor(sorted.length * 0.005)], sorted[Math.ceil(sorted.length * 0.995) - 1]];
    const near = (high - low) / 4;
    return [Math.max(sorted[0], low - near), Math.min(sorted.at(-1), high + near)];
  };
  const [[left, right], [bottom, top]] = [range(xs), range(ys)];
  camera.x = (left + right) / 2;
  camera.y = (bottom + top) / 2;
  camera.scale = 0.88 * Math.min(camera.width / (right - left || 1e-3), camera.height / (top - bottom || 1e-3));
}
