// Draws every figure of the page, in the colours of the current light or dark scheme.
(() => {
  "use strict";
  const specs = JSON.parse(document.getElementById("figures").textContent);
  const narrow = window.matchMedia("(max-width: 560px)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)");
  const config = {
    responsive: true,
    displayModeBar: false,
  };

  function coloured(value, style) {
    if (typeof value === "string") {
      const name = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((v) => coloured(v, style));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, style)]));
    }
    return value;
  }

  async function draw() {
    const style = getComputedStyle(document.documentElement);
    for (const box of document.querySelectorAll("[data-figure]")) {
      const { data, layout } = coloured(specs[box.dataset.figure], style);
      layout.font.family = style.getPropertyValue("--sans").trim();
      layout.font.size = narrow.matches ? 12 : 13;
      layout.dragmode = touch.matches ? false : "zoom"; // a finger scrolls the page, it does not zoom the plot
      layout.autosize = true;
      try {
        await Plotly.react(box, data, layout, config);
        box.dataset.drawn = "yes";
      } catch (error) {
        box.dataset.drawn = "no";
        box.textContent = "This figure could not be drawn: " + error.message;
        console.error(box.dataset.figure, error);
      }
    }
    document.documentElement.dataset.ready = dark.matches ? "dark" : "light";
  }

  document.addEventListener("click", (event) => {
    const key = event.target.dataset?.save;
    if (!key) return;
    const box = document.getElementById("plot-" + key);
    Plotly.downloadImage(box, { format: "svg", filename: key, width: box.clientWidth, height: box.clientHeight });
  });
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
  draw();
})();
