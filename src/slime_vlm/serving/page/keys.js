// Keys for all that a pointer can do. OpenSeadragon has + − and the arrows while the image has the focus.

/** @param viewer The image. @param stop Ends the answer under way. @param startAnew Takes the image away. */
export function addKeys({ viewer, stop, startAnew }) {
  const question = document.getElementById("question");
  const fade = document.getElementById("fade");
  let strength = fade.value;
  const keys = {
    "/": () => question.focus(),
    n: startAnew,
    h: () => {
      if (Number(fade.value)) strength = fade.value;
      fade.value = Number(fade.value) ? 0 : strength;
      fade.dispatchEvent(new Event("input"));
    },
    ".": () => walk(1),
    ",": () => walk(-1),
  };
  // A screen reader says what the keys find, and stays quiet about the pointer.
  const walk = (step) => {
    document.getElementById("token").ariaLive = "polite";
    viewer.walk(step);
  };
  document.getElementById("viewer").addEventListener("pointermove", () => (document.getElementById("token").ariaLive = "off"));
  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") return stop();
    if (event.target.closest("textarea, input")) return;
    const action = keys[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
