// Package client speaks the REST API of a Skein node, for the command line and
// for tests.
//
// A Client knows one or several addresses of the same fleet, as
// "http://host:port" or "unix:/path/control.sock", and uses the first that
// answers; any node serves any question, so it moves on when one is dead. A
// question (GET) is asked again elsewhere after any transport error; a change
// (POST) only if the connection could not be made, because otherwise it may
// have been accepted.
//
// With an Identity it logs in before the first request that wants a token and
// keeps the token in memory only. Over the control socket reading needs none.
// Errors are *view.Problem (the node answered, and said no), ErrUnreachable
// (nobody answered), ErrNotSkein (somebody else did), ErrNoIdentity or the
// context's own.
//
// Limits: answers up to 32 MB, redirects are not followed, every call ends
// with its context. A Client may be used by several goroutines.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"skein/node/gateway/view"
)

const (
	// maxAnswerBytes bounds one answer: a full page of events at 16 KB each.
	maxAnswerBytes = 32 << 20
	// dialTimeout leaves time to try the next address when one is a black hole.
	dialTimeout = 2 * time.Second
	// idleTimeout closes kept connections of a long-running `events tail`.
	idleTimeout = 30 * time.Second
)

// Errors that callers tell apart, besides *view.Problem.
var (
	// ErrBadAddress: the text is no address of a node.
	ErrBadAddress = errors.New("not an address of a node")
	// ErrNoIdentity: the request needs a person and none was given.
	ErrNoIdentity = errors.New("this needs a person's identity")
	// ErrUnreachable: no node answered at any address.
	ErrUnreachable = errors.New("no node answers")
	// ErrMaybeDone comes with ErrUnreachable, or with why the request's time is
	// up, when a change was sent and no answer came.
	ErrMaybeDone = errors.New("no answer came, so it may have been carried out")
	// ErrNotSkein: something answered that is no Skein node.
	ErrNotSkein = errors.New("this is no skein node")
)

// Options say whom to ask and as whom.
type Options struct {
	// Addresses are tried in order: "http://host:port" or "unix:/path".
	Addresses []string
	// Identity is the person to log in as; nil asks without a token.
	Identity *Identity
	// Timeout bounds each call, logging in included; 0 leaves that to the context.
	// It does not bound Backup and Watch.
	Timeout time.Duration
	// Read is how fresh answers about the fleet must be; "" is view.Local.
	Read view.Read
	// At is the moment that questions about the fleet are about, as view.ParseAt
	// reads it; "" is the present.
	At string
	// Now is the wall clock, to see that a token has expired.
	Now func() time.Time
	// Dial makes connections to "http://" addresses; nil is the machine's own
	// network. Tests reach hosts in other network namespaces with it.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// endpoint is one address with its own transport.
type endpoint struct {
	shown string // as the user wrote it
	base  string // scheme and host for requests
	http  *http.Client
	unix  bool
}

// Client asks one fleet. Make it with New, end it with Close.
type Client struct {
	endpoints []endpoint
	identity  *Identity
	timeout   time.Duration
	read      view.Read
	at        string
	now       func() time.Time
	local     bool // all endpoints are control sockets

	mu        sync.Mutex
	first     int       // index of the endpoint that answered last
	bearer    string    // token; "" while not logged in
	goodUntil time.Time // on our clock
}

// New checks the addresses; it does not connect.
func New(o Options) (*Client, error) {
	if len(o.Addresses) == 0 {
		return nil, fmt.Errorf("%w: no address was given", ErrUnreachable)
	}
	c := &Client{identity: o.Identity, timeout: o.Timeout, read: o.Read, at: o.At, now: o.Now, local: true}
	for _, a := range o.Addresses {
		e, err := newEndpoint(a, o.Dial)
		if err != nil {
			return nil, err
		}
		c.endpoints = append(c.endpoints, e)
		c.local = c.local && e.unix
	}
	return c, nil
}

func newEndpoint(address string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (endpoint, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	if dial == nil {
		dial = dialer.DialContext
	}
	transport := &http.Transport{DialContext: dial, IdleConnTimeout: idleTimeout, MaxConnsPerHost: 4, DisableCompression: true}
	e := endpoint{shown: address, http: &http.Client{
		Transport: transport,
		// A node never redirects; following one would carry the token away.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
		e.base, e.unix = "http://skein", true
		return e, nil
	}
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return endpoint{}, fmt.Errorf("%q is %w; write it like http://127.0.0.1:7780", e.shown, ErrBadAddress)
	}
	e.base = u.Scheme + "://" + u.Host
	return e, nil
}

// Close drops kept connections.
func (c *Client) Close() {
	for _, e := range c.endpoints {
		e.http.CloseIdleConnections()
	}
}

// limit bounds one call.
func (c *Client) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}

// request is one thing to ask.
type request struct {
	method, path, token string
	body                []byte
	// The answer goes to out, decoded, or as it is to sink if it is of a kind.
	out  any
	sink io.Writer
	kind string
}

// get asks path and decodes the answer into out.
func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.ask(ctx, request{method: http.MethodGet, path: withQuery(path, query), out: out})
}

func withQuery(path string, query url.Values) string {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path
}

// ask asks something that the owner of a control socket may ask without being a
// person.
func (c *Client) ask(ctx context.Context, r request) error {
	if !c.local && c.identity != nil {
		return c.sendAsPerson(ctx, r)
	}
	err := c.send(ctx, r)
	if p, ok := errors.AsType[*view.Problem](err); ok && p.Status == http.StatusUnauthorized && c.identity == nil {
		return ErrNoIdentity
	}
	return err
}

// post sends in to path as the client's person and decodes the answer into out.
func (c *Client) post(ctx context.Context, path string, in, out any) error {
	return c.change(ctx, http.MethodPost, path, in, out)
}

func (c *Client) change(ctx context.Context, method, path string, in, out any) error {
	r := request{method: method, path: path, out: out}
	if in != nil {
		var err error
		if r.body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	if c.identity == nil {
		return ErrNoIdentity
	}
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.sendAsPerson(ctx, r)
}

// sendAsPerson sends one request with a token. A token that the node no longer
// takes (its issuer is no voter any more) is renewed once; the refused request
// has had no effect.
func (c *Client) sendAsPerson(ctx context.Context, r request) error {
	for attempt := 0; ; attempt++ {
		token, err := c.token(ctx)
		if err != nil {
			return err
		}
		r.token = token
		err = c.send(ctx, r)
		refused, ok := errors.AsType[*view.Problem](err)
		if !ok || refused.Status != http.StatusUnauthorized || attempt > 0 {
			return err
		}
		c.forgetToken(token)
	}
}

// send goes through the addresses, the one that answered last first.
func (c *Client) send(ctx context.Context, r request) error {
	c.mu.Lock()
	first := c.first
	c.mu.Unlock()
	var tried []string
	var last error
	for i := range c.endpoints {
		at := (first + i) % len(c.endpoints)
		e := c.endpoints[at]
		err := e.roundTrip(ctx, r)
		t, lost := errors.AsType[*transportError](err)
		if !lost {
			c.mu.Lock()
			c.first = at
			c.mu.Unlock()
			return err
		}
		maybe := r.method != http.MethodGet && !t.dialing
		switch {
		case maybe && ctx.Err() != nil:
			return fmt.Errorf("ask %s: %w: %w", e.shown, ErrMaybeDone, ctx.Err())
		case ctx.Err() != nil:
			return fmt.Errorf("ask %s: %w", e.shown, ctx.Err())
		case maybe:
			return fmt.Errorf("%w at %s: %w: %w", ErrUnreachable, e.shown, ErrMaybeDone, t.err)
		}
		tried, last = append(tried, e.shown), t.err
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, strings.Join(tried, ", "), last)
}

// transportError: no complete answer came. If dialing, nothing was sent.
type transportError struct {
	err     error
	dialing bool
}

func (e *transportError) Error() string { return e.err.Error() }
func (e *transportError) Unwrap() error { return e.err }

func (e endpoint) roundTrip(ctx context.Context, r request) error {
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, r.method, e.base+r.path, bytes.NewReader(r.body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if r.sink == nil {
		req.Header.Set("Accept", "application/json")
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return &transportError{withoutAddress(err), !sent.Load()}
	}
	defer resp.Body.Close()
	if r.sink != nil && resp.StatusCode == http.StatusOK {
		return e.copyTo(r.sink, r.kind, resp)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return &transportError{fmt.Errorf("read answer: %w", err), false}
	}
	if len(answer) > maxAnswerBytes {
		return fmt.Errorf("the answer of %s is larger than %d MB; ask for fewer with --limit", e.shown, maxAnswerBytes>>20)
	}
	return e.decode(resp, answer, r.out)
}

// copyTo passes a long answer on. What was written when it fails is not all of
// it, so nobody else is asked for the rest.
func (e endpoint) copyTo(sink io.Writer, wanted string, resp *http.Response) error {
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != wanted {
		return fmt.Errorf("%w: %s answered with %q instead of %q; check --http", ErrNotSkein, e.shown, kind, wanted)
	}
	if _, err := io.Copy(sink, resp.Body); err != nil {
		return fmt.Errorf("receive from %s: %w; try again, or another node with --http", e.shown, err)
	}
	return nil
}

// withoutAddress drops what net and net/http put in front, as the address is
// named anyway.
func withoutAddress(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// decode turns a whole answer into out, or into the error that it states.
func (e endpoint) decode(resp *http.Response, answer []byte, out any) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode >= 300 {
		var p view.Problem
		if kind == "application/problem+json" && json.Unmarshal(answer, &p) == nil {
			p.Status = resp.StatusCode
			return &p
		}
		// A node always says what is wrong; this is a proxy or a foreign server.
		return fmt.Errorf("%w: %s answered %s; check --http", ErrNotSkein, e.shown, resp.Status)
	}
	if out == nil {
		return nil
	}
	if kind != "application/json" {
		return fmt.Errorf("%w: %s answered with %q instead of JSON; check --http", ErrNotSkein, e.shown, kind)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%w: %s answered with JSON of another kind: %w; is its version the same as `skein version`?", ErrNotSkein, e.shown, err)
	}
	return nil
}
