// The dialogue opens when it is filled. Pointing at a cell of one picture shows which cells of the other match it.
// Colours of Okabe and Ito, which people with colour blindness can tell apart too; STRONGEST is an opacity.
const MORE = "#d55e00", LESS = "#0072b2", STRONGEST = 0.75;
const paint = (svg, values, largest = Math.max(...values.map(Math.abs)) || 1) => {
  [...svg.querySelectorAll("rect")].forEach((cell, place) => {
    cell.setAttribute("fill", values[place] > 0 ? MORE : LESS);
    cell.setAttribute("fill-opacity", ((Math.abs(values[place]) / largest) * STRONGEST).toFixed(3));
  });
};
const cellsOf = (svg) => JSON.parse(svg.dataset.cells).flat();
const show = (svg, place) => {
  const pair = svg.closest(".pair"), [query, hit] = pair.querySelectorAll("svg"), pairs = JSON.parse(pair.dataset.pairs);
  pair.querySelectorAll(".touched").forEach((cell) => cell.classList.remove("touched"));
  const [own, other] = svg === query ? [query, hit] : [hit, query];
  own.dataset.place = place;
  own.querySelectorAll("rect")[place].classList.add("touched");
  paint(own, cellsOf(own), +pair.dataset.largest);
  paint(other, svg === query ? pairs[place] : pairs.map((row) => row[place]));
  own.closest("figure").querySelector(".cell").textContent = svg.dataset.said.replace("{value}", cellsOf(own)[place].toFixed(4));
  other.closest("figure").querySelector(".cell").textContent = "\u00a0";
};
const reset = (pair) => pair.querySelectorAll("svg").forEach((svg) => {
  paint(svg, cellsOf(svg), +pair.dataset.largest);
  svg.querySelectorAll(".touched").forEach((cell) => cell.classList.remove("touched"));
  svg.closest("figure").querySelector(".cell").textContent = "\u00a0";
});
watch("value", () => {
  const dialog = element.querySelector("dialog");
  if (!dialog || dialog.open) return;
  dialog.querySelectorAll(".pair").forEach(reset);
  dialog.showModal();
});
const touch = (event) => {
  const cell = event.target.closest?.("rect");
  if (cell) show(cell.closest("svg"), [...cell.parentNode.querySelectorAll("rect")].indexOf(cell));
};
element.addEventListener("pointerover", touch);
element.addEventListener("pointerdown", touch);
element.addEventListener("pointerleave", () => element.querySelectorAll(".pair").forEach(reset));
element.addEventListener("keydown", (event) => {
  const svg = event.target.closest("svg"), step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (!svg || !step) return;
  event.preventDefault();
  const [, , columns, rows] = svg.getAttribute("viewBox").split(" ").map(Number), place = Number(svg.dataset.place ?? 0);
  const x = Math.min(columns - 1, Math.max(0, (place % columns) + step[0])), y = Math.min(rows - 1, Math.max(0, Math.floor(place / columns) + step[1]));
  show(svg, y * columns + x);
});
// Emptied when it is closed, so that the same result can be explained again; the event does not bubble.
element.addEventListener("close", () => (props.value = ""), true);
element.addEventListener("click", (event) => {
  const dialog = event.target.closest("dialog");
  // A click on the dialogue itself is one beside its content: on what lies behind it.
  if (dialog && (event.target.closest("[data-close]") || event.target === dialog)) dialog.close();
});
