// The frame around every signed-in page: header, banners, footer, and what a
// screen reader hears.

import type { ComponentChildren, JSX } from "preact";
import { useEffect } from "preact/hooks";
import { duration, plural, shortId, timeOfDay } from "../core/format";
import { eventsHref, fleetHref } from "../core/route";
import type { Staleness } from "../core/store";
import { useApp } from "./context";
import { Logo, Said } from "./parts";

export function Shell({ children }: { children: ComponentChildren }): JSX.Element {
  const { store } = useApp();
  const toMain = (e: Event): void => {
    e.preventDefault();
    document.getElementById("main")?.focus();
  };
  return (
    <>
      <a class="skip" href="#main" onClick={toMain}>
        Skip to the content
      </a>
      <Header />
      <section class="banners" aria-label="Notices">
        <StaleBanner />
        <Notices />
      </section>
      <main id="main" tabIndex={-1}>
        {children}
      </main>
      <Footer />
      <div class="offscreen" role="status" aria-live="polite">
        {store.announcement}
      </div>
    </>
  );
}

function Header(): JSX.Element {
  const { store, route } = useApp();
  const fleet = store.fleet.value;
  const page = route.value.page;
  return (
    <header class="top">
      <a class="brand" href={fleetHref} title="To the fleet">
        <Logo />
        <span>{fleet?.name || "Skein"}</span>
      </a>
      <nav aria-label="Pages">
        <a href={fleetHref} aria-current={page === "events" ? undefined : "page"}>
          Fleet
        </a>
        <a href={eventsHref} aria-current={page === "events" ? "page" : undefined}>
          Events
        </a>
      </nav>
      <FleetHeader />
      <Connected />
      <div class="tools">
        <ThemeButton />
        <button type="button" onClick={() => store.signOut()} title={`Signed in as ${store.session.value?.person || "an unnamed person"}`} data-testid="sign-out">
          Sign out
        </button>
      </div>
    </header>
  );
}

/** leader X · term N · can lose K */
function FleetHeader(): JSX.Element {
  const { store } = useApp();
  const f = store.fleet.value;
  if (f === null) return <div class="pulse" data-testid="fleet-header" />;
  const fragile = f.canLose <= 0;
  return (
    <div class="pulse" data-testid="fleet-header">
      <span>
        leader{" "}
        <b data-testid="leader" data-node-id={f.leader?.id} class={f.leader ? undefined : "bad"}>
          {f.leader?.name ?? "none"}
        </b>
      </span>
      <span>
        term <b data-testid="term">{f.term}</b>
      </span>
      <span class={fragile ? "bad" : undefined} title={f.canLoseReason || undefined}>
        can lose <b data-testid="can-lose">{f.canLose}</b>
      </span>
    </div>
  );
}

function Connected(): JSX.Element {
  const { store } = useApp();
  const link = store.link.value;
  const stale = store.staleness.value !== null;
  const live = link.phase === "live";
  return (
    <div class={`connected ${live && !stale ? "live" : "lost"}`} data-testid="connected-node" data-node-id={live ? link.target?.id : undefined} title={link.target?.url}>
      <span class="mark" aria-hidden="true" />
      {live ? (
        <span>
          {stale ? "via " : "live via "}
          <b>{link.target?.name}</b>
        </span>
      ) : (
        <span>not connected</span>
      )}
    </div>
  );
}

function ThemeButton(): JSX.Element {
  const { theme } = useApp();
  const shown = theme.preference.value;
  return (
    <button type="button" onClick={() => theme.toggle()} title={`Switch to ${theme.next()}`} data-testid="theme">
      Theme: {shown}
    </button>
  );
}

/** A wait that nobody needs to hear of. */
const shortWaitMillis = 1000;

function StaleBanner(): JSX.Element | null {
  const { store } = useApp();
  const s = store.staleness.value;
  if (s === null) return null;
  const link = store.link.value;
  const name = link.target?.name ?? "another node";
  const stuck = (s.why === "stale" || s.why === "unheard") && link.phase === "live";
  return (
    <div class="banner bad" data-testid="stale-banner">
      <p>
        <strong>{staleWords(s, store.now.value)}</strong>
        {s.why !== "unheard" && <span class="since"> (since {timeOfDay(s.since)})</span>}
        {stuck ? "; what you see is that old." : `; ${whatNext(link.phase, name, link.retryAt, store.now.value)}`}
        {link.error !== "" && link.phase !== "live" && (
          <span>
            {" "}
            <Said text={link.error} />.
          </span>
        )}
      </p>
      {link.phase === "waiting" && (link.retryAt ?? 0) - store.now.value > shortWaitMillis && (
        <button type="button" onClick={() => store.retryNow()}>
          Try now
        </button>
      )}
      {stuck && store.peers.value.length > 0 && (
        <button type="button" onClick={() => store.moveOn()}>
          Try another node
        </button>
      )}
    </div>
  );
}

function staleWords(s: Staleness, now: number): string {
  const length = duration(now - s.since);
  switch (s.why) {
    case "unheard":
      return `${s.from} has heard no leader since it started`;
    case "stale":
      return `${s.from} has had no word from the leader for ${length}`;
    case "never":
      return `Nothing heard from the fleet for ${length}`;
    default:
      return `No news from ${s.from} for ${length}`;
  }
}

function whatNext(phase: string, name: string, retryAt: number | null, now: number): string {
  if (phase === "live") return `now connected to ${name}.`;
  if (phase === "connecting" || retryAt === null) return `trying ${name}…`;
  return retryAt - now > shortWaitMillis ? `trying ${name} in ${duration(retryAt - now)}…` : `trying ${name}…`;
}

function Notices(): JSX.Element {
  const { store } = useApp();
  const fleet = store.fleet.value;
  const moved = store.moved.value;
  const reset = store.reset.value;
  const behind = store.behindBy.value;
  const name = store.link.value.target?.name ?? "This node";
  const failed = store.signInState.value;
  return (
    <>
      {fleet !== null && fleet.canLose <= 0 && (
        <div class={`banner ${fleet.leader === null ? "bad" : "warn"}`} data-testid="fragile-banner">
          <p>
            <strong>{fleet.leader === null ? "No leader, nothing can be decided now" : "This fleet can lose 0 voters"}</strong>
            {fleet.canLoseReason !== "" && ": "}
            <Said text={fleet.canLoseReason} />
          </p>
        </div>
      )}
      {behind > 0 && (
        <div class="banner warn" data-testid="behind-notice">
          <p>
            <strong>
              {name} is behind by {plural(behind, "event")}.
            </strong>{" "}
            You keep seeing the newer state until it has caught up.
          </p>
        </div>
      )}
      {reset !== null && (
        <div class="banner warn" data-testid="reset-notice">
          <p>
            <strong>The view was rebuilt at {timeOfDay(reset.at)}.</strong> {reset.reason || "The fleet's history began anew."} Events shown before are no longer listed.
          </p>
          <button type="button" onClick={() => store.dismissReset()}>
            Dismiss
          </button>
        </div>
      )}
      {failed.error !== "" && (
        <div class="banner warn" data-testid="signin-notice">
          <p>
            <strong>That login link did not work:</strong> <Said text={failed.error} /> You are still signed in as before.
          </p>
          <button type="button" onClick={() => store.dismissSignIn()}>
            Dismiss
          </button>
        </div>
      )}
      {moved !== null && store.staleness.value === null && (
        <div class="banner good" data-testid="moved-notice">
          <p>
            Connected to <strong>{name}</strong>
            {moved.from === name ? " again" : ` instead of ${moved.from}`}. The view is live.
          </p>
        </div>
      )}
    </>
  );
}

function Footer(): JSX.Element {
  const { store } = useApp();
  const cursor = store.cursor.value;
  const asOf = store.asOf.value;
  const online = [...store.robots.value.values()].filter((r) => r.status === "online").length;
  const fleet = store.fleet.value;
  useEffect(() => {
    const stale = store.staleness.value === null ? "" : "(stale) ";
    document.title = fleet === null ? "Skein" : `${stale}${online}/${store.robots.value.size} online · ${fleet.name || "Skein"}`;
  });
  if (cursor === null) return <footer />;
  return (
    <footer data-testid="cursor" data-seq={cursor.seq}>
      <span>event {cursor.seq.toLocaleString("en")}</span>
      <span title={cursor.history}>history {shortId(cursor.history)}</span>
      {asOf !== null && asOf.ageMillis !== null && <span title="Since the leader's last mark reached this node">as of {duration(store.now.value - asOf.at + asOf.ageMillis)} ago</span>}
    </footer>
  );
}
