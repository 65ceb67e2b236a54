// Buttons that come and go, and the keyboard stays: a browser sends it to the top of the page when what has it is disabled,
// hidden or replaced.

// A button that is not enabled still has its place in the order of Tab.
export function enable(button, isEnabled) {
  button.setAttribute("aria-disabled", !isEnabled);
}

export function onPress(button, action) {
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") action();
  });
}

// next: what the keyboard goes to if it is in what is hidden.
export function show(element, isShown, next) {
  if (!isShown && element.contains(document.activeElement)) next.focus();
  element.hidden = !isShown;
}
