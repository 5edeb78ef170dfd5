// What is chosen just now. Whoever shows something of it listens; nobody else is told.

const state = {
  token: null, // id of the chosen token
  frame: meta.frames.length - 1, // may lie between two frames
  playing: false,
  before: false, // whether neighbours are those before training
  colour: "frequency",
  unseen: false, // whether tokens that training never saw are shown
  names: true,
  hiddenClasses: new Set(), // of the colouring: what the legend switched off
  theme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light",
  view: "space",
};
const listeners = [];

function listen(fields, react) {
  listeners.push({ fields, react });
}

function change(fields) {
  const changed = Object.keys(fields).filter((name) => state[name] !== fields[name]);
  Object.assign(state, fields);
  for (const { fields: wanted, react } of listeners) if (changed.some((name) => wanted.includes(name))) react();
}

const $$ = (id) => document.getElementById(id);

// An element with text, never with markup: tokens are untrusted.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// A token's name, kept apart from the text around it whichever way it is written.
const named = (text) => element("bdi", { class: "label", title: text }, text);

function announce(text) {
  $$("live").textContent = text;
}

function saveAs(name, blob) {
  const link = element("a", { download: name, href: URL.createObjectURL(blob) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
