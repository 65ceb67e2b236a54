// Says so when a file of the page did not come: none of its modules runs then, and the page does nothing.
// Not a module, for the same reason.
"use strict";

(() => {
  const say = () => {
    document.getElementById("away").textContent =
      "A file of this page did not come, so the page does not work: the server was too busy, or went away. Load the page again.";
  };
  addEventListener("error", ({ target }) => {
    if (!(target instanceof HTMLScriptElement)) return;
    if (document.readyState === "loading") addEventListener("DOMContentLoaded", say);
    else say();
  }, true);
})();
