// Light or dark. The system decides until the button is pressed; the tab remembers the choice.
// Not a module: it runs before the first paint, so that no page flashes in the wrong colours.
"use strict";

(() => {
  const page = document.documentElement;
  const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (page.dataset.theme ? page.dataset.theme === "dark" : systemIsDark.matches);

  // A browser may forbid both; then the choice lasts as long as the page.
  const keep = (theme) => {
    try {
      sessionStorage.setItem("packlight.theme", theme);
    } catch {}
  };
  try {
    const kept = sessionStorage.getItem("packlight.theme");
    if (kept) page.dataset.theme = kept;
  } catch {}

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      const other = isDark() ? "Light" : "Dark";
      button.textContent = other;
      button.setAttribute("aria-label", `${other} colours`);
      // What is drawn on canvases has the colours of the page.
      dispatchEvent(new Event("themechange"));
    };
    button.addEventListener("click", () => {
      page.dataset.theme = isDark() ? "light" : "dark";
      keep(page.dataset.theme);
      show();
    });
    systemIsDark.addEventListener("change", show);
    show();
  });
})();
