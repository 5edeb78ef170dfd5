// Charts by plotly, each in a card: drawn when first seen, again when the theme changes, and saved as PNG.

const drawn = new Map(); // element -> what it shows
const TITLE = 36; // pixels of height, in a saved picture
let starting = null;

// Starts plotly, which lies deflated in the page; its hash is in the content security policy.
function plotly() {
  starting ??= inflated("plotly").then((bytes) => {
    const script = document.createElement("script");
    script.textContent = utf8.decode(bytes);
    document.head.append(script);
    return globalThis.Plotly;
  });
  return starting;
}

// A card: heading, what one sees there, and a chart or why there is none.
function card(title, text, ...children) {
  const save = element("button", { class: "save", "aria-label": `Save ${title} as PNG` }, "PNG");
  const top = element("div", { class: "top" }, element("h2", {}, title), save);
  const made = element("section", { class: "card", "aria-label": title }, top, element("p", {}, text), ...children);
  made.top = top;
  save.addEventListener("click", () => savePicture(made, title));
  return made;
}

function missingCard(title, text, why) {
  const made = card(title, text, element("p", { class: "missing" }, why));
  made.querySelector(".save").remove(); // there is nothing to see
  return made;
}

// `make` returns {traces, layout} anew for every theme, with text for those who do not see it.
function chartCard(title, text, make, spoken) {
  const place = element("div", { class: "chart", role: "img", "aria-label": `${title}. ${spoken}` });
  const made = card(title, text, place);
  drawn.set(place, make);
  made.refresh = () => draw(place);
  return made;
}

// Where nothing can be seen there is no size to draw in: the view draws its charts when it is opened.
async function draw(place) {
  if (!place.clientWidth) return;
  const { traces, layout = {} } = drawn.get(place)();
  const Plotly = await plotly();
  await Plotly.react(place, traces, themed(layout), { displayModeBar: false, responsive: true });
  $$("js-plotly-tester")?.setAttribute("aria-hidden", "true"); // where plotly measures text
}

async function drawAll(section) {
  for (const place of section.querySelectorAll(".chart")) await draw(place);
}

async function savePicture(made, title) {
  const place = made.querySelector(".chart");
  const name = `${meta.title}-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}.png`;
  if (!place) return saveAs(name, await pictureOf(made));
  const Plotly = await plotly();
  const titled = { ...place.layout, title: { text: title, x: 0.01, xanchor: "left", yref: "container", y: 0.99, yanchor: "top", automargin: true } };
  const size = { width: place.clientWidth, height: place.clientHeight + TITLE };
  const address = await Plotly.toImage({ data: place.data, layout: titled }, { format: "png", scale: 2, ...size });
  saveAs(name, new Blob([fromBase64(address.slice(address.indexOf(",") + 1))], { type: "image/png" }));
}

function themed(layout) {
  const [ink, quiet, line] = ["--ink", "--quiet", "--line"].map(styleOf);
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line, tickfont: { color: quiet }, title: { font: { color: quiet } }, automargin: true, nticks: 8 };
  const merged = (own = {}) => ({ ...axis, ...own, title: { text: own.title ?? "", font: { color: quiet, size: 12 }, standoff: 8 } });
  return {
    margin: { l: 52, r: 16, t: 8, b: 44 },
    font: { family: styleOf("--sans"), size: 12, color: ink },
    paper_bgcolor: styleOf("--card"),
    plot_bgcolor: styleOf("--card"),
    hoverlabel: { font: { family: styleOf("--mono") } },
    legend: { orientation: "h", y: 1.03, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", font: { color: quiet } },
    ...layout,
    xaxis: merged(layout.xaxis),
    yaxis: merged(layout.yaxis),
  };
}

const ramp = () => [[0, styleOf("--card")], [0.02, styleOf("--low")], [0.5, styleOf("--middle")], [1, styleOf("--high")]];

// Text that plotly shows: it knows a few tags of its own, which a token must not become.
const plainText = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const lines = (xs, rows, names) =>
  rows.map((ys, place) => ({ x: xs, y: ys, name: names[place], mode: "lines", line: { width: 2, color: palette()[place % 8], dash: place < 8 ? "solid" : "dot" } }));

// Cards in a grid, those that have nothing to show behind the others: a few fill the gap beside the last chart.
function inGrid(cards) {
  const lacking = cards.filter((one) => one.querySelector(".missing"));
  const shown = cards.filter((one) => !lacking.includes(one));
  const gap = shown.filter((one) => !one.classList.contains("wide")).length % 2 === 1;
  const behind = gap && lacking.length < 3 ? [element("div", { class: "stack" }, ...lacking)] : lacking;
  return element("div", { class: "cards" }, ...shown, ...behind);
}

// Rows of a matrix that lies end to end.
const rowsOf = (numbers, width) => Array.from({ length: numbers.length / width }, (_, row) => Array.from(numbers.subarray(row * width, (row + 1) * width)));
