"use strict";

const PAPER = 680; // pixels: what fits on a printed page

const plots = [];
for (const [place, figure] of Object.entries(JSON.parse(document.getElementById("figures").textContent))) {
  const plot = document.getElementById(place);
  const settings = { displayModeBar: false, responsive: true, doubleClick: "reset+autosize" };
  // a finger that drags wants to scroll the page
  if (matchMedia("(pointer: coarse)").matches) figure.layout.dragmode = false;
  Plotly.newPlot(plot, figure.data, figure.layout, settings);
  plots.push(plot);
}

for (const box of document.querySelectorAll("input[data-run]")) {
  box.addEventListener("change", () => {
    for (const plot of plots) {
      const traces = plot.data.flatMap((trace, i) => (trace.meta === Number(box.dataset.run) ? [i] : []));
      if (traces.length) Plotly.restyle(plot, { visible: box.checked }, traces);
    }
  });
  box.dispatchEvent(new Event("change")); // a page that is loaded again keeps its boxes
}

for (const figure of document.querySelectorAll(".pictures")) {
  const slider = figure.querySelector("input");
  const pictures = figure.querySelectorAll(".picture");
  slider?.addEventListener("input", () => {
    pictures.forEach((picture, i) => (picture.hidden = i !== Number(slider.value)));
    figure.querySelector("output").textContent = pictures[slider.value].dataset.step;
  });
  slider?.dispatchEvent(new Event("input"));
}

for (const command of document.querySelectorAll(".command")) {
  const button = command.querySelector("button");
  button.addEventListener("click", () => {
    const code = command.querySelector("code");
    getSelection().selectAllChildren(code);
    // old, but it also works in a page that was opened as a file
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}

addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => (part.open = true));
  plots.forEach((plot) => Plotly.relayout(plot, { width: Math.min(PAPER, plot.clientWidth) }));
});
addEventListener("afterprint", () => plots.forEach((plot) => Plotly.relayout(plot, { width: null, autosize: true })));
