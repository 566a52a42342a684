// Light, dark, or as the system has it; the choice is kept in this browser.

const CHOICES = ["auto", "light", "dark"];
const SAID = { auto: "as the system has them", light: "light", dark: "dark" };
const system = matchMedia("(prefers-color-scheme: dark)");

function kept() {
  try {
    const choice = localStorage.getItem("lakestream-theme");
    return CHOICES.includes(choice) ? choice : "auto";
  } catch {
    return "auto"; // storage may be switched off
  }
}

export function setUpTheme(button, onChange) {
  let choice = kept();
  const apply = () => {
    document.documentElement.dataset.theme = choice === "auto" ? (system.matches ? "dark" : "light") : choice;
    button.textContent = choice[0].toUpperCase() + choice.slice(1);
    button.setAttribute("aria-label", `Colours: ${SAID[choice]}`);
    onChange();
  };
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    try {
      localStorage.setItem("lakestream-theme", choice);
    } catch {
      // storage may be switched off: the choice holds until the page is closed
    }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
