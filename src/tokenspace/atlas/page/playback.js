// The training, played back: a slider over the frames, and the loss beside it.

const SECONDS = 8; // from the first frame to the last

function createPlayback() {
  const [slider, play, step, curve] = [$$("frame"), $$("play"), $$("step"), $$("curve")];
  const last = meta.frames.length - 1;
  const note = meta.frames_note ?? (last < 1 ? "There are no frames: this is no run of training." : null);
  if (last < 1) for (const one of [slider, ...slider.labels, play, step]) one.hidden = true;
  if (note !== null) $$("no-frames").textContent = note;
  $$("no-frames").hidden = note === null;
  slider.max = last;
  slider.value = last;
  const gentle = matchMedia("(prefers-reduced-motion: reduce)").matches; // frame by frame, without gliding

  let started = 0;
  function advance(now) {
    if (!state.playing) return;
    const frame = Math.min(last, ((now - started) / (SECONDS * 1000)) * last);
    change({ frame: Math.max(state.frame, gentle ? Math.floor(frame) : frame) }); // a picture's time may lie before the click
    if (frame >= last) change({ playing: false });
    else requestAnimationFrame(advance);
  }
  play.addEventListener("click", () => {
    if (state.playing) return change({ playing: false });
    if (state.frame >= last) change({ frame: 0 });
    started = performance.now() - (state.frame / last) * SECONDS * 1000;
    change({ playing: true });
    requestAnimationFrame(advance);
  });
  slider.addEventListener("input", () => change({ playing: false, frame: Number(slider.value) }));
  slider.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    change({ playing: false, frame: Math.min(last, Math.max(0, Math.round(state.frame) + by)) });
  });

  function show() {
    slider.value = state.frame;
    const now = stepOf(state.frame);
    step.textContent = last < 1 ? "" : `step ${whole(Math.round(now))} of ${whole(meta.frames[last])}`;
    slider.setAttribute("aria-valuetext", step.textContent);
    drawCurve(curve, now);
  }
  curve.addEventListener("click", (event) => {
    const frame = curve.getBoundingClientRect();
    const wanted = ((event.clientX - frame.left) / frame.width) * meta.frames[last];
    const after = Math.max(1, meta.frames.findIndex((one) => one >= wanted));
    const [a, b] = [meta.frames[after - 1], meta.frames[after]];
    if (last > 0) change({ playing: false, frame: after - 1 + (wanted - a) / (b - a || 1) });
  });
  listen(["frame", "theme"], show);
  listen(["playing"], () => (play.textContent = state.playing ? "Pause" : "Play"));
  curve.hidden = !knownLosses().flat().length;
  new ResizeObserver(show).observe(curve); // while another view is open it has no size to be drawn in
}

// The training step at a frame, between frames too.
function stepOf(frame) {
  const first = Math.min(Math.floor(frame), meta.frames.length - 1);
  const second = Math.min(first + 1, meta.frames.length - 1);
  return meta.frames[first] + (meta.frames[second] - meta.frames[first]) * (frame - first);
}

function drawCurve(canvas, now) {
  if (canvas.hidden) return;
  const [train, evaluation] = knownLosses();
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const losses = [...train, ...evaluation].map((pair) => pair[1]);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const end = Math.max(1, meta.frames.at(-1), ...train.slice(-1).map((pair) => pair[0]));
  const x = (step) => 2 + (step / end) * (width - 4);
  const y = (loss) => 3 + (1 - (loss - low) / (high - low || 1)) * (height - 6);
  const line = (pairs, colour, thick) => {
    pen.beginPath();
    pairs.forEach(([step, loss], place) => (place ? pen.lineTo(x(step), y(loss)) : pen.moveTo(x(step), y(loss))));
    pen.strokeStyle = colour;
    pen.lineWidth = thick;
    pen.stroke();
  };
  line(train, styleOf("--middle"), 1);
  line(evaluation, styleOf("--ink"), 2);
  pen.fillStyle = styleOf("--chosen");
  pen.fillRect(x(now) - 1, 0, 2, height);
  const nearest = (pairs) => pairs.reduce((best, pair) => (Math.abs(pair[0] - now) < Math.abs(best[0] - now) ? pair : best), pairs[0]);
  const beside = nearest(evaluation.length ? evaluation : train);
  pen.fillStyle = styleOf("--ink");
  pen.font = `11px ${styleOf("--sans")}`;
  pen.textAlign = "right";
  pen.fillText(`${evaluation.length ? "validation" : "training"} loss ${beside[1].toFixed(2)}`, width - 6, 10);
  canvas.setAttribute("aria-label", `Loss over training: ${beside[1].toFixed(2)} nats near step ${Math.round(now)}`);
  canvas.title = canvas.getAttribute("aria-label");
}
