// The gallery as points: hovering shows an image, a click finds similar ones; the wheel zooms, dragging moves the map.
const canvas = element.querySelector("canvas"), tip = element.querySelector(".tip"), legend = element.querySelector(".legend");
let points = null, view = {x: 0, y: 0, zoom: 1}, current = -1, only = null, drag = null, asked = 0;
const NONE = 65535;
const colour = (label) => (label === NONE ? "#888" : `hsl(${(label * 137.5) % 360} 65% ${label % 2 ? 42 : 55}%)`);
const decode = (text, Kind) => new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
const scale = () => (Math.min(canvas.clientWidth, canvas.clientHeight) / 2 - 12) * view.zoom;
const screen = (row) => [
  canvas.clientWidth / 2 + (points.places[2 * row] - view.x) * scale(),
  canvas.clientHeight / 2 - (points.places[2 * row + 1] - view.y) * scale(),
];
const draw = () => {
  if (!points || !canvas.clientWidth) return;
  const ratio = devicePixelRatio, context = canvas.getContext("2d");
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  context.scale(ratio, ratio);
  const size = Math.min(6, (points.labels.length > 5000 ? 2 : 3.5) * Math.sqrt(view.zoom));
  for (let row = 0; row < points.labels.length; row++) {
    const [x, y] = screen(row), label = points.labels[row];
    if (x < -9 || y < -9 || x > canvas.clientWidth + 9 || y > canvas.clientHeight + 9) continue;
    context.globalAlpha = only === null || only === label ? 0.8 : 0.08;
    context.fillStyle = colour(label);
    context.beginPath();
    context.arc(x, y, size, 0, 7);
    context.fill();
  }
  if (current < 0) return;
  const [x, y] = screen(current);
  context.globalAlpha = 1;
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x, y, size + 4, 0, 7);
  context.stroke();
};
const nearest = (x, y, reach, from = -1, accept = () => true) => {
  let best = -1, least = reach * reach;
  for (let row = 0; row < points.labels.length; row++) {
    const [left, top] = screen(row), distance = (left - x) ** 2 + (top - y) ** 2;
    if (row !== from && distance < least && accept(left - x, top - y)) [best, least] = [row, distance];
  }
  return best;
};
const choose = async (row) => {
  if (row === current) return;
  current = row;
  draw();
  tip.replaceChildren(); // the picture of another point, until this one's is here
  const turn = ++asked;
  if (row < 0) return;
  const {name, picture, error} = await server.look({row: points.rows[row], of: points.of});
  if (turn !== asked) return;
  if (error) return (tip.textContent = error);
  const image = Object.assign(new Image(), {src: picture, alt: name}), [x, y] = screen(row);
  tip.replaceChildren(image, Object.assign(document.createElement("span"), {textContent: name}));
  tip.style.left = `${Math.min(Math.max(x, 80), canvas.clientWidth - 80)}px`;
  tip.style.top = `${y}px`;
  tip.classList.toggle("below", y < canvas.clientHeight / 2);
};
const at = (event) => {
  const {left, top} = canvas.getBoundingClientRect();
  return [event.clientX - left, event.clientY - top];
};
const load = async () => {
  if (points || !canvas.clientWidth) return draw();
  points = {rows: [], labels: [], places: []};
  const {rows, places, labels, legend: names, others, none, of, error} = await server.points();
  if (error) return (points = null);
  points = {of, rows: decode(rows, Uint32Array), places: decode(places, Float32Array), labels: decode(labels, Uint16Array)};
  element.querySelector(".loading")?.remove();
  for (const [name, label] of [...names.map((name, label) => [name, label]), ...(none ? [[none, NONE]] : [])]) {
    const button = Object.assign(document.createElement("button"), {textContent: name});
    button.style.setProperty("--colour", colour(label));
    button.setAttribute("aria-pressed", false);
    button.onclick = () => {
      only = only === label ? null : label;
      legend.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", other === button && only !== null));
      draw();
    };
    legend.appendChild(document.createElement("li")).appendChild(button);
  }
  if (others) legend.appendChild(document.createElement("li")).textContent = others;
  draw();
};
// The tab has no size before it is opened.
new ResizeObserver(load).observe(canvas);

const search = (row) => row >= 0 && send({do: "search", row: String(points.rows[row]), of: points.of});
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = at(event);
  if (!drag) return choose(nearest(x, y, 14));
  view = {...view, x: drag.view.x - (x - drag.x) / scale(), y: drag.view.y + (y - drag.y) / scale()};
  drag.moved ||= Math.hypot(x - drag.x, y - drag.y) > 5;
  draw();
});
canvas.addEventListener("pointerdown", (event) => {
  const [x, y] = at(event);
  drag = {x, y, view, moved: false};
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointerup", (event) => {
  const moved = drag?.moved, [x, y] = at(event);
  drag = null;
  if (!moved) search(nearest(x, y, 14));
});
canvas.addEventListener("pointercancel", () => (drag = null));
canvas.addEventListener("pointerleave", () => choose(-1));
// Nearer to a place, which stays where it is.
const zoom = (times, [x, y]) => {
  const before = scale(), [dx, dy] = [x - canvas.clientWidth / 2, canvas.clientHeight / 2 - y];
  view = {...view, zoom: Math.min(60, Math.max(1, view.zoom * times))};
  view = {...view, x: view.x + dx / before - dx / scale(), y: view.y + dy / before - dy / scale()};
  if (view.zoom === 1) view = {x: 0, y: 0, zoom: 1};
  choose(-1);
  draw();
};
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), at(event));
}, {passive: false});
element.addEventListener("click", (event) => {
  const times = event.target.closest("[data-zoom]")?.dataset.zoom;
  if (times) zoom(+times, [canvas.clientWidth / 2, canvas.clientHeight / 2]);
});
const AHEAD = {ArrowLeft: (x, y) => x < -Math.abs(y), ArrowRight: (x, y) => x > Math.abs(y), ArrowUp: (x, y) => y < -Math.abs(x), ArrowDown: (x, y) => y > Math.abs(x)};
canvas.addEventListener("keydown", (event) => {
  if (event.key === "Enter") return search(current);
  if (!(event.key in AHEAD) || !points) return;
  event.preventDefault();
  const [x, y] = current < 0 ? [canvas.clientWidth / 2, canvas.clientHeight / 2] : screen(current);
  const next = current < 0 ? nearest(x, y, 1e9) : nearest(x, y, 1e9, current, AHEAD[event.key]);
  if (next >= 0) choose(next);
});
