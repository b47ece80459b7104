import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { origin } from "../core/connection";
import { codeOf } from "../core/session";
import { useApp } from "./context";
import { Command, Logo, Said } from "./parts";

export function SignIn(): JSX.Element {
  const { store } = useApp();
  const [code, setCode] = useState("");
  const field = useRef<HTMLInputElement>(null);
  const { busy, error, next } = store.signInState.value;
  useEffect(() => {
    document.title = "Sign in · Skein";
    field.current?.focus();
  }, []);
  const submit = (e: Event): void => {
    e.preventDefault();
    const trimmed = codeOf(code);
    if (trimmed === "") field.current?.focus();
    else void store.signIn(trimmed);
  };
  return (
    <main class="signin" data-testid="signin">
      <h1>
        <Logo /> Skein
      </h1>
      <p>On any robot of the fleet, or where you keep your key, type</p>
      <p>
        <Command>skein fleet login</Command>
      </p>
      <p>and open the link it prints, or paste the link or its code here. It works once.</p>
      <form onSubmit={submit}>
        <label for="code">Link or code</label>
        <div class="row">
          <input
            id="code" ref={field} name="code" value={code} onInput={(e) => setCode(e.currentTarget.value)} autocomplete="off"
            autocapitalize="off" spellcheck={false} aria-describedby="signin-error" aria-invalid={error !== ""} data-testid="signin-code"
          />
          <button type="submit" class="primary" disabled={busy} data-testid="signin-submit">
            {busy ? "Signing in…" : "Sign in"}
          </button>
        </div>
      </form>
      <div id="signin-error" role="alert" data-testid="signin-error">
        {error !== "" && (
          <p class="error">
            <Said text={error} />
          </p>
        )}
        {next !== "" && (
          <p>
            <Said text={next} />
          </p>
        )}
      </div>
      <Elsewhere />
    </main>
  );
}

/** Signing in is at the node that served the page; if that one is gone, others serve the same page. */
function Elsewhere(): JSX.Element | null {
  const { store } = useApp();
  const peers = store.peers.value.filter((p) => origin(p.http) !== null && origin(p.http) !== location.origin);
  if (!store.signInState.value.unreachable || peers.length === 0) return null;
  return (
    <div>
      <p>Sign in at another node of this fleet:</p>
      <ul class="places">
        {peers.slice(0, 8).map((p) => (
          <li key={p.id}>
            <a href={p.http}>{p.name}</a>
          </li>
        ))}
      </ul>
    </div>
  );
}
