// Dark or light: the system's choice unless someone has chosen here.

import { computed, signal, type ReadonlySignal, type Signal } from "@preact/signals";

export type Preference = "auto" | "light" | "dark";

const key = "skein.theme";
const order: readonly Preference[] = ["auto", "light", "dark"];

export class Theme {
  readonly preference: Signal<Preference>;
  readonly shown: ReadonlySignal<"light" | "dark">;
  private readonly systemDark: Signal<boolean>;

  constructor(media: MediaQueryList, private readonly storage: Storage) {
    const saved = storage.getItem(key);
    this.preference = signal(saved === "light" || saved === "dark" ? saved : "auto");
    this.systemDark = signal(media.matches);
    media.addEventListener("change", (e) => (this.systemDark.value = e.matches));
    this.shown = computed(() => (this.preference.value === "auto" ? (this.systemDark.value ? "dark" : "light") : this.preference.value));
  }

  next(): Preference {
    return order[(order.indexOf(this.preference.value) + 1) % order.length] as Preference;
  }

  toggle(): void {
    const preference = this.next();
    this.preference.value = preference;
    if (preference === "auto") this.storage.removeItem(key);
    else this.storage.setItem(key, preference);
  }
}
