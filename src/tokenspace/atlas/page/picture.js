// A part of the page as a picture: the browser itself draws it, as the content of an SVG image.

async function pictureOf(part) {
  const [width, height] = [part.clientWidth, part.scrollHeight];
  const copy = part.cloneNode(true);
  copy.querySelectorAll("button.save").forEach((button) => button.remove());
  copy.style.cssText = `width:${width}px;height:${height}px;border:0;overflow:hidden;background:${styleOf("--card")}`;
  const sheet = element("style", {}, document.querySelector("style").textContent);
  const root = element("div", {}, sheet, copy);
  // In an image there is no root element with a theme: its colours are written out.
  const names = ["--paper", "--card", "--ink", "--quiet", "--line", "--accent", "--on-accent", "--chosen", "--low", "--middle", "--high", "--mono", "--sans"];
  root.style.cssText = `${names.map((name) => `${name}:${styleOf(name)}`).join(";")};color:${styleOf("--ink")};font:14px/1.45 ${styleOf("--sans")}`;
  const text = new XMLSerializer().serializeToString(root).replaceAll(NOT_IN_XML, "\ufffd");
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><foreignObject width="100%" height="100%">${text}</foreignObject></svg>`;
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = element("canvas", { width: width * 2, height: height * 2 });
  const pen = canvas.getContext("2d");
  pen.fillStyle = styleOf("--card");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done));
}

// Characters that XML forbids, and halves of surrogate pairs.
const NOT_IN_XML = /[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu;
