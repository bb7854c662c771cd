element.addEventListener("click", async (event) => {
  const save = event.target.closest("[data-threshold]");
  if (save) keep(await server.save({threshold: +save.dataset.threshold}));
  else if (event.target.closest(".more")) trigger("more");
});
