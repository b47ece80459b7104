package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"skein/node/gateway/view"
)

// Overview asks for the fleet in figures.
func (c *Client) Overview(ctx context.Context) (out view.Overview, err error) {
	err = c.about(ctx, "/api/v1/overview", &out)
	return out, err
}

// Alerts asks what is wrong, by what the fleet decided.
func (c *Client) Alerts(ctx context.Context) (out view.Alerts, err error) {
	err = c.about(ctx, "/api/v1/alerts", &out)
	return out, err
}

// Deployments asks how far deployments are.
func (c *Client) Deployments(ctx context.Context) (out view.Deployments, err error) {
	err = c.about(ctx, "/api/v1/deployments", &out)
	return out, err
}

// Get asks any question of /openapi.json, for who wants the answer as it is.
func (c *Client) Get(ctx context.Context, path string, query url.Values) (out json.RawMessage, err error) {
	err = c.get(ctx, path, query, &out)
	return out, err
}

// Copy is Get for who wants the JSON of the answer to go to sink as it comes, not
// looked at. What was written when it fails is not all of it.
func (c *Client) Copy(ctx context.Context, path string, query url.Values, sink io.Writer) error {
	ctx, cancel := c.limit(ctx)
	defer cancel()
	return c.ask(ctx, request{method: http.MethodGet, path: withQuery(path, query), sink: sink, kind: "application/json"})
}
