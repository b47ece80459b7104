package console

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

// built looks like what npm run build makes, built by nobody.
var built = fstest.MapFS{
	"dist/.keep":               {Data: nil},
	"dist/index.html":          {Data: []byte("<!doctype html>the page")},
	"dist/licenses.txt":        {Data: []byte("MIT")},
	"dist/assets/app-ABC.js":   {Data: []byte("run()")},
	"dist/assets/app-ABC.css":  {Data: []byte("a{}")},
	"dist/assets/icon-ABC.svg": {Data: []byte("<svg/>")},
	"unbuilt.html":             {Data: []byte("type make build")},
}

// plain is a checkout in which npm has never run.
var plain = fstest.MapFS{
	"dist/.keep":   {Data: nil},
	"unbuilt.html": {Data: []byte("type make build")},
}

func ask(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, "http://robot"+target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	return string(b)
}

func handlerOf(t *testing.T, files fstest.MapFS) http.Handler {
	t.Helper()
	h, err := newHandler(files)
	if err != nil {
		t.Fatalf("newHandler: %v", err)
	}
	return h
}

func TestBuiltConsole(t *testing.T) {
	h := handlerOf(t, built)
	const page = "<!doctype html>the page"
	for _, c := range []struct {
		target string
		status int
		kind   string
		cache  string
		body   string
	}{
		{"/", 200, "text/html; charset=utf-8", cacheRevalidate, page},
		{"/index.html", 200, "text/html; charset=utf-8", cacheRevalidate, page},
		{"/robots", 200, "text/html; charset=utf-8", cacheRevalidate, page},
		{"/apiary", 200, "text/html; charset=utf-8", cacheRevalidate, page},
		{"/assets/app-ABC.js", 200, "text/javascript; charset=utf-8", cacheForEver, "run()"},
		{"/assets/app-ABC.css", 200, "text/css; charset=utf-8", cacheForEver, "a{}"},
		{"/assets/icon-ABC.svg", 200, "image/svg+xml", cacheForEver, "<svg/>"},
		{"/licenses.txt", 200, "text/plain; charset=utf-8", cacheRevalidate, "MIT"},
		{"/assets/app-OLD.js", 404, "", "", ""},
		{"/favicon.ico", 404, "", "", ""},
		{"/.keep", 404, "", "", ""},
		{"/api", 404, "", "", ""},
		{"/api/v1/nothing", 404, "", "", ""},
		{"/../embed.go", 404, "", "", ""},
		{"/assets/../../unbuilt.html", 404, "", "", ""},
	} {
		t.Run(strings.ReplaceAll(c.target, "/", "_"), func(t *testing.T) {
			r := ask(t, h, http.MethodGet, c.target)
			if r.StatusCode != c.status {
				t.Fatalf("status %d, want %d", r.StatusCode, c.status)
			}
			if c.status != 200 {
				return
			}
			if got := r.Header.Get("Content-Type"); got != c.kind {
				t.Errorf("content type %q, want %q", got, c.kind)
			}
			if got := r.Header.Get("Cache-Control"); got != c.cache {
				t.Errorf("cache control %q, want %q", got, c.cache)
			}
			if got := body(t, r); got != c.body {
				t.Errorf("body %q, want %q", got, c.body)
			}
			if !strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'self'; ") {
				t.Errorf("no content policy: %v", r.Header)
			}
		})
	}
}

func TestUnchangedPageIsNotSentAgain(t *testing.T) {
	h := handlerOf(t, built)
	etag := ask(t, h, http.MethodGet, "/").Header.Get("ETag")
	if etag == "" {
		t.Fatal("no ETag")
	}
	r := ask(t, h, http.MethodGet, "/", "If-None-Match", etag)
	if r.StatusCode != http.StatusNotModified || body(t, r) != "" {
		t.Errorf("asked with its ETag: status %d, want 304 without a body", r.StatusCode)
	}
	changed := fstest.MapFS{"dist/index.html": {Data: []byte("another page")}}
	if other := ask(t, handlerOf(t, changed), http.MethodGet, "/").Header.Get("ETag"); other == etag {
		t.Errorf("another page has the same ETag %s", etag)
	}
}

func TestOnlyReading(t *testing.T) {
	h := handlerOf(t, built)
	if r := ask(t, h, http.MethodPost, "/"); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: status %d, Allow %q", r.StatusCode, r.Header.Get("Allow"))
	}
	r := ask(t, h, http.MethodHead, "/assets/app-ABC.js")
	if r.StatusCode != 200 || body(t, r) != "" || r.Header.Get("Content-Length") != "5" {
		t.Errorf("HEAD: status %d, length %q", r.StatusCode, r.Header.Get("Content-Length"))
	}
}

func TestPlainCheckoutSaysHowToBuild(t *testing.T) {
	h := handlerOf(t, plain)
	for _, target := range []string{"/", "/robots"} {
		r := ask(t, h, http.MethodGet, target)
		if r.StatusCode != 200 || !strings.Contains(body(t, r), "make build") {
			t.Errorf("%s: status %d, or no word of make build", target, r.StatusCode)
		}
		if got := r.Header.Get("Cache-Control"); got != cacheRevalidate {
			t.Errorf("%s: cache control %q: a built console would stay hidden", target, got)
		}
	}
	if r := ask(t, h, http.MethodGet, "/assets/app-ABC.js"); r.StatusCode != 404 {
		t.Errorf("asset of a console that is not there: status %d, want 404", r.StatusCode)
	}
}

func TestNeitherIsAnError(t *testing.T) {
	if _, err := newHandler(fstest.MapFS{}); err == nil {
		t.Error("no page at all was accepted")
	}
}

// What this very binary carries is either of the two, whole.
func TestEmbedded(t *testing.T) {
	h := Handler()
	page := body(t, ask(t, h, http.MethodGet, "/"))
	if !Built() {
		if !strings.Contains(page, "make build") {
			t.Errorf("the page does not say how to build the console:\n%s", page)
		}
		return
	}
	_, rest, found := strings.Cut(page, `<script type="module" src="`)
	script, _, _ := strings.Cut(rest, `"`)
	if !found {
		t.Fatalf("the page has no script:\n%s", page)
	}
	r := ask(t, h, http.MethodGet, script)
	if r.StatusCode != 200 || r.Header.Get("Cache-Control") != cacheForEver {
		t.Errorf("%s: status %d, cache control %q", script, r.StatusCode, r.Header.Get("Cache-Control"))
	}
}
