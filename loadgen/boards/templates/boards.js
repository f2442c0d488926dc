// Draws each figure in the colours of a light or a dark page, and again when that changes.
(() => {
  const palette = JSON.parse(document.getElementById("palette").textContent);
  const dark = matchMedia("screen and (prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plot")];
  const config = { displayModeBar: false, responsive: true, doubleClick: "reset" };

  const draw = (plot, shade) => {
    const text = plot.querySelector("script").textContent;
    const figure = JSON.parse(text.replace(/"@colour-(\d+)"/g, (_, i) => JSON.stringify(palette[i][shade])));
    const drawn = plot.firstElementChild;
    const hidden = plot.hidden_traces ?? new Set();
    for (const i of hidden) figure.data[i].visible = false;
    Plotly.react(drawn, figure.data, figure.layout, config);
  };
  const drawAll = () => plots.forEach((plot) => draw(plot, dark.matches ? 1 : 0));

  // One after the other, so that the page can be read meanwhile.
  const waiting = [...plots];
  const next = () => {
    const plot = waiting.shift();
    if (!plot) return;
    draw(plot, dark.matches ? 1 : 0);
    setTimeout(next, 0);
  };
  next();

  dark.addEventListener("change", drawAll);
  addEventListener("beforeprint", () => {
    document.body.style.width = "1040px"; // A4, landscape, without its margins
    plots.forEach((plot) => { draw(plot, 0); Plotly.Plots.resize(plot.firstElementChild); });
  });
  addEventListener("afterprint", () => { document.body.style.width = ""; drawAll(); });

  document.addEventListener("click", (event) => {
    const key = event.target.closest("button[data-trace]");
    if (!key) return;
    const plot = key.closest(".panel").querySelector(".plot");
    plot.hidden_traces ??= new Set();
    const trace = Number(key.dataset.trace);
    const off = key.classList.toggle("off");
    plot.hidden_traces[off ? "add" : "delete"](trace);
    draw(plot, dark.matches ? 1 : 0);
  });
})();
