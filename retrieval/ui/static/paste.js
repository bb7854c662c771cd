// A picture pasted, or dropped anywhere on the page, goes into the drop zone.
const take = (event, files) => {
  const input = document.querySelector("#query input[type=file]"), picture = [...files].find(({type}) => type.startsWith("image/"));
  if (!input || !picture) return;
  event.preventDefault();
  const chosen = new DataTransfer();
  chosen.items.add(picture);
  input.files = chosen.files;
  input.dispatchEvent(new Event("change", {bubbles: true}));
};
document.addEventListener("paste", (event) => take(event, event.clipboardData?.files ?? []));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => event.target.closest?.("#query, #add") || take(event, event.dataTransfer?.files ?? []));
