/* Draws Plotly's figures. Colours come from the style sheet, so that figures follow the page when
   it turns dark. */
(function () {
  function colours() {
    const style = getComputedStyle(document.documentElement);
    return { "font.color": style.getPropertyValue("--fg").trim(),
             "hoverlabel.bgcolor": style.getPropertyValue("--panel").trim(),
             "hoverlabel.font.color": style.getPropertyValue("--fg").trim() };
  }
  const plots = [];
  for (const holder of document.querySelectorAll("[data-figure]")) {
    const figure = JSON.parse(document.getElementById(holder.dataset.figure).textContent);
    const mouse = window.matchMedia("(hover: hover) and (min-width: 40rem)").matches;
    const bar = mouse ? "hover" : false;
    const options = { responsive: true, displaylogo: false, displayModeBar: bar };
    const drawn = Plotly.newPlot(holder, figure.data, figure.layout, options);
    drawn.then(function () { Plotly.relayout(holder, colours()); });
    plots.push(holder);
  }
  function repaint() { for (const holder of plots) Plotly.relayout(holder, colours()); }
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
})();
