// The data of the page: arrays as page/packing.py packed them, unpacked when they are first asked for.

const meta = JSON.parse(document.getElementById("meta").textContent);
const index = new Map(JSON.parse(document.getElementById("index").textContent).map((fields) => [fields.name, fields]));
const TYPES = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int16: Int16Array, int32: Int32Array,
  float16: Uint16Array, float32: Float32Array,
};
const unpacked = new Map();
const utf8 = new TextDecoder();

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

async function inflated(id) {
  const carrier = document.getElementById(id);
  const stream = new Blob([fromBase64(carrier.textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
  carrier.remove(); // the text is not needed twice
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The numbers of an array, or null where the page has none of that name.
function array(name) {
  if (!index.has(name)) return Promise.resolve(null);
  if (!unpacked.has(name)) unpacked.set(name, unpack(index.get(name)));
  return unpacked.get(name);
}

async function unpack({ name, dtype, shape, differences }) {
  const planes = await inflated(`array-${name}`);
  const type = TYPES[dtype];
  const size = type.BYTES_PER_ELEMENT;
  const length = planes.length / size;
  const bytes = size === 1 ? planes : new Uint8Array(planes.length);
  for (let plane = 0; size > 1 && plane < size; plane++) {
    for (let i = 0, at = plane * length; i < length; i++, at++) bytes[i * size + plane] = planes[at];
  }
  const numbers = new type(bytes.buffer, bytes.byteOffset, length);
  if (differences) {
    const one = length / shape[0];
    for (let i = one; i < length; i++) numbers[i] += numbers[i - one];
  }
  return dtype === "float16" ? Float32Array.from(numbers, fromHalf) : numbers;
}

function fromHalf(half) {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : (2 ** -14 * fraction) / 1024);
}

const shapeOf = (name) => index.get(name).shape;

// Strings that lie end to end: labels, or the bytes of tokens.
function endToEnd(bytes, offsets) {
  return { length: offsets.length - 1, bytes: (i) => bytes.subarray(offsets[i], offsets[i + 1]), text: (i) => utf8.decode(bytes.subarray(offsets[i], offsets[i + 1])) };
}

// What the map and the token panel need from the start; everything else is unpacked when it is shown.
async function loadTokens() {
  const names = ["xy", "label_bytes", "label_offsets", "token_bytes", "token_offsets", "count", "norm", "kind", "script", "state", "nonfinite_rows", "far_rows"];
  const found = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await array(name)])));
  const labels = endToEnd(found.label_bytes, found.label_offsets);
  const names_ = new Array(labels.length);
  const size = labels.length;
  const tokens = {
    size,
    frames: meta.frames,
    xy: found.xy,
    label: (i) => (names_[i] ??= labels.text(i)),
    bytes: endToEnd(found.token_bytes, found.token_offsets).bytes,
    allBytes: found.token_bytes,
    byteOffsets: found.token_offsets,
    count: found.count,
    norm: found.norm,
    kind: found.kind,
    script: found.script,
    state: found.state,
    hasPlace: new Uint8Array(size).fill(1),
    isFar: new Set(found.far_rows), // stand farther out than they are drawn
    byCount: null, // ids, the most frequent first
  };
  for (const row of found.nonfinite_rows ?? []) tokens.hasPlace[row] = 0;
  const order = Uint32Array.from({ length: size }, (_, i) => i);
  tokens.byCount = found.count ? order.sort((a, b) => found.count[b] - found.count[a] || a - b) : order;
  return tokens;
}

// Losses that are numbers, [step, loss] each: of training, and of evaluation.
const knownLosses = () => [meta.loss.train, meta.loss.evaluation].map((pairs) => pairs.filter((pair) => pair[1] !== null));
const wasSeen = (tokens, id) => !tokens.state || tokens.state[id] < 2; // as input or as target
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
const whole = new Intl.NumberFormat("en").format;
const counted = (number, name) => `${whole(number)} ${name}${number === 1 ? "" : "s"}`;
