// Draws each figure in the colours of a light or a dark page and in the size of its place, and again when those change.
(() => {
  const palette = JSON.parse(document.getElementById("palette").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plot")];
  const config = { displayModeBar: false, doubleClick: "reset" };
  const hidden = new Map(plots.map((plot) => [plot, new Set()]));
  const onPaper = () => document.body.classList.contains("paper");

  const draw = (plot) => {
    const shade = dark.matches && !onPaper() ? 1 : 0;
    const text = plot.querySelector("script").textContent;
    const figure = JSON.parse(text.replace(/"@colour-(\d+)"/g, (_, i) => JSON.stringify(palette[i][shade])));
    for (const i of hidden.get(plot)) figure.data[i].visible = false;
    const place = plot.firstElementChild;
    const size = { width: place.clientWidth, height: place.clientHeight };
    figure.layout.xaxis.nticks = Math.max(3, Math.floor(size.width / 90));
    Plotly.react(place, figure.data, { ...figure.layout, ...size }, config);
  };
  const drawAll = () => plots.forEach(draw);

  // One after the other, so that the page can be read meanwhile.
  const waiting = [...plots];
  const next = () => {
    if (!waiting.length) return;
    draw(waiting.shift());
    setTimeout(next, 0);
  };
  next();

  dark.addEventListener("change", drawAll);
  let resized;
  addEventListener("resize", () => {
    clearTimeout(resized);
    resized = setTimeout(drawAll, 150);
  });
  addEventListener("beforeprint", () => {
    document.body.classList.add("paper");
    drawAll();
  });
  addEventListener("afterprint", () => {
    document.body.classList.remove("paper");
    drawAll();
  });

  document.addEventListener("click", (event) => {
    const key = event.target.closest("button[data-trace]");
    if (!key) return;
    const plot = key.closest(".panel").querySelector(".plot");
    hidden.get(plot)[key.classList.toggle("off") ? "add" : "delete"](Number(key.dataset.trace));
    draw(plot);
  });
})();
