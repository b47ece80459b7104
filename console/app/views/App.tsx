import type { JSX } from "preact";
import { useEffect, useMemo } from "preact/hooks";
import { useApp } from "./context";
import { Detail } from "./Detail";
import { EventList } from "./Events";
import { FleetTable } from "./Fleet";
import { Empty } from "./parts";
import { Shell } from "./Shell";
import { SignIn } from "./SignIn";

export function Root(): JSX.Element {
  const { store, theme } = useApp();
  const shown = theme.shown.value;
  useEffect(() => document.documentElement.setAttribute("data-theme", shown), [shown]);
  return store.session.value === null ? <SignIn /> : <Pages />;
}

function Pages(): JSX.Element {
  const { store, route } = useApp();
  const at = route.value;
  /** The robot whose page was last open; its row gets the focus back. */
  const returnTo = useMemo<{ id: string | null }>(() => ({ id: null }), []);
  if (at.page === "robot") returnTo.id = at.id;
  if (store.cursor.value === null) {
    return (
      <Shell>
        <Empty title="Waiting for the fleet…">
          <h1 class="offscreen">Fleet</h1>
          <p class="muted">The first picture comes as soon as a node answers.</p>
        </Empty>
      </Shell>
    );
  }
  return (
    <Shell>
      {at.page === "robot" && <Detail id={at.id} key={at.id} />}
      {at.page === "events" && (
        <>
          <h1 class="offscreen">Events of the fleet</h1>
          <EventList heading="Events" />
        </>
      )}
      {at.page === "fleet" && (
        <div class="overview">
          <FleetTable returnTo={returnTo} />
          <EventList heading="Events" />
        </div>
      )}
    </Shell>
  );
}
