// The page's entry: gives the store a browser to live in, and draws.

import { signal } from "@preact/signals";
import { render } from "preact";
import { PageClock } from "./core/clock";
import type { Socket, SocketHandlers } from "./core/connection";
import { subprotocol } from "./core/protocol";
import { loginCode, parseRoute } from "./core/route";
import { AppStore } from "./core/store";
import { Theme } from "./core/theme";
import { Root } from "./views/App";
import { AppContext } from "./views/context";
import "./style.css";

function openSocket(url: string, handlers: SocketHandlers): Socket {
  const ws = new WebSocket(`${url.replace(/^http/, "ws")}/api/v1/ws`, subprotocol);
  ws.onopen = () => handlers.opened();
  ws.onmessage = (e) => handlers.message(String(e.data));
  ws.onclose = (e) => handlers.closed(e.code);
  return {
    send: (text) => ws.send(text),
    close: () => {
      ws.onopen = ws.onmessage = ws.onclose = null;
      ws.close();
    },
  };
}

function after(millis: number, fn: () => void): () => void {
  const timer = setTimeout(fn, millis);
  return () => clearTimeout(timer);
}

const store = new AppStore({
  clock: new PageClock(),
  storage: sessionStorage,
  home: location.origin,
  connection: { open: openSocket, after, random: Math.random },
});
const theme = new Theme(matchMedia("(prefers-color-scheme: dark)"), localStorage);
const route = signal(parseRoute(location.hash));

/** A one-time code leaves the address bar and the history before it is used. */
function followHash(): void {
  const code = loginCode(location.hash);
  if (code !== null) {
    history.replaceState(null, "", `${location.pathname}#/`);
    void store.signIn(code);
  }
  route.value = parseRoute(location.hash);
}

addEventListener("hashchange", followHash);
addEventListener("online", () => store.retryNow());
followHash();
store.start();
render(
  <AppContext.Provider value={{ store, theme, route }}>
    <Root />
  </AppContext.Provider>,
  document.getElementById("app") as HTMLElement,
);
