// Cuts the cells into slides, by headings, Predict and Explain and by what fits, and starts the deck. A slide that is
// too full for its size is set smaller, no further than to SMALLEST; beyond that it scrolls.
const FULL = 0.85;
const SMALLEST = 0.6;
const PIECES = ".jp-MarkdownOutput > *, .jp-InputArea-editor > *, .jp-OutputArea-output > *";
const BEGINS = /^(Predict|Explain|Try)\b/;

function overflows(slide, size) {
  slide.style.fontSize = `${size}em`;
  return slide.scrollHeight > slide.clientHeight + 1 || slide.scrollWidth > slide.clientWidth + 1;
}

function cut(slides) {
  const pieces = [...slides.querySelectorAll(PIECES)];
  const made = [];
  let slide, heading = "";
  function begin() {
    slide = document.createElement("section");
    slide.style.display = "block"; // to be measured
    if (heading) slide.dataset.section = heading;
    slides.append(slide);
    made.push(slide);
  }
  slides.style.width = "1280px";
  const whole = [...slides.children];
  for (const piece of pieces) {
    const wrapper = piece.parentElement.cloneNode(false); // its classes set the style
    const isHeading = /^H[1-4]$/.test(piece.tagName);
    const bare = slide && !slide.dataset.section && slide.children.length === 1 && slide.querySelector("h1, h2, h3, h4");
    const isInput = Boolean(piece.closest(".jp-InputArea-editor"));
    const begins = isHeading || isInput || BEGINS.test(piece.querySelector("strong")?.textContent ?? "");
    if (!slide || (begins && !bare)) {
      if (isHeading) heading = "";
      begin();
    }
    if (isHeading) heading = piece.innerText.replace("¶", "");
    wrapper.append(piece);
    slide.append(wrapper);
    if (slide.children.length > 1 && overflows(slide, FULL)) {
      begin();
      slide.append(wrapper);
    }
  }
  for (const one of whole) one.remove();
  for (const one of made) one.style.display = "";
}

function fit(slide) {
  slide.removeAttribute("tabindex");
  for (let size = 1; size >= SMALLEST - 0.001; size -= 0.05) if (!overflows(slide, size)) return;
  slide.tabIndex = 0; // so that arrow keys can scroll it
}

window.addEventListener("load", () => {
  cut(document.querySelector(".slides"));
  Reveal.on("ready", () => fit(Reveal.getCurrentSlide()));
  Reveal.on("slidechanged", (event) => fit(event.currentSlide));
  document.addEventListener("toggle", () => fit(Reveal.getCurrentSlide()), true); // a folded part was opened
  Reveal.initialize({
    width: 1280,
    height: 720,
    margin: 0.02,
    center: false,
    hash: true,
    keyboard: { 36: () => Reveal.slide(0) }, // Home
    slideNumber: "c/t",
    transition: "none",
  });
});
