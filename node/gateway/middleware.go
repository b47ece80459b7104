package gateway

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"skein/node/gateway/rest"
	"skein/node/gateway/view"
)

// contentPolicy lets the console load its own files only, and talk to the other
// nodes of the fleet, whose addresses change: hence any http and ws address.
const contentPolicy = "default-src 'self'; connect-src 'self' ws: wss: http: https:; img-src 'self' data:; " +
	"style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// withHeaders sets what every answer carries. Handlers may override.
func withHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// sameSite refuses requests that change something and come from a page of
// another site. A page cannot forge what this looks at; programs do not send it.
// It lets GET pass, and so the WebSocket's upgrade: that has its own check.
func sameSite(next http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		rest.WriteProblem(w, &view.Problem{
			Title: http.StatusText(http.StatusForbidden), Status: http.StatusForbidden, Code: "not_allowed",
			Detail: "a page of another site may not ask for this", Next: "open the console at this node's own address",
		})
	}))
	return p.Handler(next)
}

// recorder remembers the status that was written.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader passes the status on.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write passes the body on.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap is for deadlines and for the WebSocket to take the connection over.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// counting counts requests by route and status, and keeps a failing handler
// from being silent. Routes are patterns, so strangers cannot make new ones.
func counting(set *metrics.Set, log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		began := time.Now()
		defer func() {
			failed := recover()
			if failed == http.ErrAbortHandler {
				panic(failed)
			}
			if failed != nil {
				log.Error("a request failed inside this node", "route", r.Pattern, "panic", fmt.Sprint(failed), "stack", string(debug.Stack()))
				if rec.status == 0 {
					rest.WriteProblem(rec, &view.Problem{Title: http.StatusText(500), Status: 500, Code: "internal", Detail: "this node failed", Next: "see its log"})
				}
			}
			count(set, r.Pattern, rec.status, began)
		}()
		next.ServeHTTP(rec, r)
	})
}

func count(set *metrics.Set, route string, status int, began time.Time) {
	if route == "" {
		route = "none"
	}
	if status == 0 {
		status = http.StatusOK // what the server says for a handler that says nothing
	}
	set.GetOrCreateCounter(fmt.Sprintf("skein_http_requests_total{route=%q,code=\"%d\"}", route, status)).Inc()
	if status != http.StatusSwitchingProtocols {
		set.GetOrCreateHistogram(fmt.Sprintf("skein_http_request_seconds{route=%q}", route)).UpdateDuration(began)
	}
}
