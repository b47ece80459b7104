import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { ReadonlySignal } from "@preact/signals";
import type { Route } from "../core/route";
import type { AppStore } from "../core/store";
import type { Theme } from "../core/theme";

/** What every view may use; one per page. */
export interface App {
  store: AppStore;
  theme: Theme;
  route: ReadonlySignal<Route>;
}

export const AppContext = createContext<App | null>(null);

export function useApp(): App {
  const app = useContext(AppContext);
  if (app === null) throw new Error("a view was rendered outside AppContext");
  return app;
}
