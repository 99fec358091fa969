// Names and stops of the keyboard that the theme leaves out; axe looks for them.
document$.subscribe(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  const name = () => {
    document.querySelectorAll("pre > code").forEach((code) => (code.tabIndex = 0));
    document.querySelectorAll(".md-typeset__scrollwrap").forEach((table) => {
      table.scrollWidth > table.clientWidth ? (table.tabIndex = 0) : table.removeAttribute("tabindex");
    });
    document.querySelectorAll(".md-code__nav").forEach((nav, i) => nav.setAttribute("aria-label", `Code ${i + 1}`));
    document.querySelectorAll("nav.md-nav[data-md-level]").forEach((nav, i) => {
      nav.removeAttribute("aria-labelledby");
      nav.setAttribute("aria-label", i ? `Pages ${i}` : "Navigation");
    });
  };
  name();
  addEventListener("resize", name);
  new MutationObserver(name).observe(document.querySelector("main"), { childList: true, subtree: true });
});
