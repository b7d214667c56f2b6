// Starts the deck, and sets a slide smaller where it holds more than fits: no more than to SMALLEST, then it scrolls.
const SMALLEST = 0.6;

function fit(slide) {
  if (!slide || slide.classList.contains("stack")) return;
  slide.removeAttribute("tabindex");
  for (let size = 1; size >= SMALLEST - 0.001; size -= 0.05) {
    slide.style.fontSize = `${size}em`;
    if (slide.scrollHeight <= slide.clientHeight + 1 && slide.scrollWidth <= slide.clientWidth + 1) return;
  }
  slide.tabIndex = 0; // so that arrow keys can scroll it
}

Reveal.on("ready", () => fit(Reveal.getCurrentSlide()));
Reveal.on("slidechanged", (event) => fit(event.currentSlide));
document.addEventListener("toggle", () => fit(Reveal.getCurrentSlide()), true); // a folded part was opened
Reveal.initialize({
  width: 1280,
  height: 720,
  margin: 0.02,
  center: false,
  hash: true,
  navigationMode: "linear", // right arrow and a clicker go through all slides, whatever their layout
  keyboard: { 36: () => Reveal.slide(0, 0) }, // Home: the very first slide, not the last one seen of the first stack
  slideNumber: "c/t",
  transition: "none",
});
