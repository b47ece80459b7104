// Package console holds the web console: a TypeScript app under app/, built by
// npm into dist/, and this file, which puts the result into the binary.
//
// A plain checkout has no built console, and `go build` still works: Handler
// then answers every page with one that says how to build it. Which of the two
// is served is decided once, when Handler is called, from what was embedded.
//
// The package knows nothing of the fleet; the app talks to the gateway's HTTP
// and WebSocket faces (DESIGN.md beside this file). Only node may import it.
package console

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed all:dist unbuilt.html
var embedded embed.FS

const (
	indexName   = "index.html"
	unbuiltName = "unbuilt.html"
	// hashedFolder holds files whose names change with their content.
	hashedFolder = "assets/"
	// apiName is the gateway's folder; a page is never an answer there.
	apiName = "api"

	cacheForEver    = "public, max-age=31536000, immutable"
	cacheRevalidate = "no-cache"

	// contentPolicy keeps everything on the node that served the page, except
	// WebSockets: when that node dies, the page goes on at another one, whose
	// address no policy can know in advance.
	contentPolicy = "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)

// contentTypes does not ask the machine's MIME tables, which differ.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// Built reports whether this binary carries the console, or only the page that
// says how to build it.
func Built() bool {
	_, err := fs.Stat(embedded, "dist/"+indexName)
	return err == nil
}

// Handler serves the console below "/": files by their path, and the app's page
// for any other path, because the app finds its own way. Missing files and paths
// below /api/ are not found. It holds no state and may be used by many nodes.
func Handler() http.Handler {
	h, err := newHandler(embedded)
	if err != nil {
		// Reading an embedded file cannot fail; only a wrong name above can.
		panic(fmt.Sprintf("console: %v", err))
	}
	return h
}

// file is one answer. Its body stays in the binary's read-only pages: a node
// pays no heap for a console that nobody opens.
type file struct {
	name  string
	kind  string
	cache string
	etag  string
}

type handler struct {
	root  fs.FS
	files map[string]file
	page  file
}

// newHandler serves dist/ of root or, if that holds no page, unbuilt.html.
func newHandler(root fs.FS) (http.Handler, error) {
	h := &handler{root: root, files: make(map[string]file)}
	page, err := describe(root, "dist/"+indexName)
	if errors.Is(err, fs.ErrNotExist) {
		h.page, err = describe(root, unbuiltName)
		return h, err
	}
	if err != nil {
		return nil, err
	}
	h.page = page
	err = fs.WalkDir(root, "dist", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			return err
		}
		f, err := describe(root, name)
		if err != nil {
			return err
		}
		h.files[strings.TrimPrefix(name, "dist/")] = f
		return nil
	})
	return h, err
}

func describe(root fs.FS, name string) (file, error) {
	body, err := root.Open(name)
	if err != nil {
		return file{}, fmt.Errorf("open embedded %s: %w", name, err)
	}
	defer body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, body); err != nil {
		return file{}, fmt.Errorf("read embedded %s: %w", name, err)
	}
	kind, ok := contentTypes[path.Ext(name)]
	if !ok {
		kind = "application/octet-stream"
	}
	cache := cacheRevalidate
	if strings.HasPrefix(name, "dist/"+hashedFolder) {
		cache = cacheForEver
	}
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:12]) + `"`
	return file{name: name, kind: kind, cache: cache, etag: etag}, nil
}

// ServeHTTP answers GET and HEAD.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD here", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	f, ok := h.files[name]
	if !ok {
		if path.Ext(name) != "" || name == apiName || strings.HasPrefix(name, apiName+"/") {
			http.NotFound(w, r)
			return
		}
		f = h.page
	}
	h.send(w, r, f)
}

func (h *handler) send(w http.ResponseWriter, r *http.Request, f file) {
	body, err := h.root.Open(f.name)
	if err != nil {
		http.Error(w, "this part of the console cannot be read", http.StatusInternalServerError)
		return
	}
	defer body.Close()
	content, ok := body.(io.ReadSeeker)
	if !ok {
		http.Error(w, "this part of the console cannot be read", http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", f.kind)
	header.Set("Cache-Control", f.cache)
	header.Set("ETag", f.etag)
	header.Set("Content-Security-Policy", contentPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	// The zero time sends no Last-Modified: the ETag decides.
	http.ServeContent(w, r, f.name, time.Time{}, content)
}
