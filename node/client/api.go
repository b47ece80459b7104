package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"skein/node/gateway/view"
)

// expiryMargin is how long before its end a token is renewed.
const expiryMargin = 30 * time.Second

// Fleet asks for the fleet's header: leader, term, voters, how many may fail.
func (c *Client) Fleet(ctx context.Context) (out view.Fleet, err error) {
	err = c.get(ctx, "/api/v1/fleet", nil, &out)
	return out, err
}

// Robots asks for all robots, those that left or were revoked too.
func (c *Client) Robots(ctx context.Context) (out view.Robots, err error) {
	err = c.get(ctx, "/api/v1/robots", nil, &out)
	return out, err
}

// Robot asks for one robot by id, name or unique id prefix.
func (c *Client) Robot(ctx context.Context, which string) (out view.Robot, err error) {
	err = c.get(ctx, "/api/v1/robots/"+url.PathEscape(which), nil, &out)
	return out, err
}

// Nodes asks for all admitted nodes as the asked node's gossip sees them.
func (c *Client) Nodes(ctx context.Context) (out view.Nodes, err error) {
	err = c.get(ctx, "/api/v1/nodes", nil, &out)
	return out, err
}

// Raft asks the node that answers for its own part in consensus.
func (c *Client) Raft(ctx context.Context) (out view.Raft, err error) {
	err = c.get(ctx, "/api/v1/raft", nil, &out)
	return out, err
}

// Events asks for at most limit events (0: the server's own limit) after seq
// since that match filter, oldest first.
func (c *Client) Events(ctx context.Context, since uint64, filter view.EventFilter, limit int) (out view.Events, err error) {
	query := url.Values{"since": {strconv.FormatUint(since, 10)}}
	if filter.Stream != "" {
		query.Set("stream", filter.Stream)
	}
	if filter.Type != "" {
		query.Set("type", filter.Type)
	}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	err = c.get(ctx, "/api/v1/events", query, &out)
	return out, err
}

// EventTypes asks which events the node that answers knows.
func (c *Client) EventTypes(ctx context.Context) (out view.EventTypes, err error) {
	err = c.get(ctx, "/api/v1/events/types", nil, &out)
	return out, err
}

// Propose asks the fleet to decide drafts, all or none, and waits until it has.
func (c *Client) Propose(ctx context.Context, drafts ...view.Draft) (out view.Receipt, err error) {
	err = c.post(ctx, "/api/v1/events", view.Proposal{Drafts: drafts}, &out)
	return out, err
}

// NewToken makes a one-time join token that is good for ttl, whole seconds.
func (c *Client) NewToken(ctx context.Context, ttl time.Duration) (out view.Token, err error) {
	err = c.post(ctx, "/api/v1/tokens", view.TokenRequest{TTLSeconds: int(ttl / time.Second)}, &out)
	return out, err
}

// NewLoginCode makes a one-time code that logs the same person in elsewhere.
func (c *Client) NewLoginCode(ctx context.Context) (out view.LoginCode, err error) {
	err = c.post(ctx, "/api/v1/login/code", struct{}{}, &out)
	return out, err
}

// Leave makes the node that answers leave its fleet and stop. Over the control
// socket the machine's own user may do that without being an admin.
func (c *Client) Leave(ctx context.Context) error {
	var out view.LeaveAnswer
	if c.local {
		ctx, cancel := c.limit(ctx)
		defer cancel()
		return c.send(ctx, http.MethodPost, "/api/v1/leave", "", []byte("{}"), &out)
	}
	return c.post(ctx, "/api/v1/leave", struct{}{}, &out)
}

// token returns a token that is still good, logging in if there is none. Two
// callers at once may both log in, which is harmless. How long a token is good
// is counted on this machine's clock from the node's, which may differ.
func (c *Client) token(ctx context.Context) (string, error) {
	c.mu.Lock()
	token, goodUntil := c.bearer, c.goodUntil
	c.mu.Unlock()
	if token != "" && c.now().Before(goodUntil) {
		return token, nil
	}
	var info view.LoginInfo
	if err := c.send(ctx, http.MethodGet, "/api/v1/login", "", nil, &info); err != nil {
		return "", err
	}
	body, err := json.Marshal(view.SignLogin(c.identity.Key, info, c.identity.Person))
	if err != nil {
		return "", fmt.Errorf("encode login: %w", err)
	}
	var session view.Session
	if err := c.send(ctx, http.MethodPost, "/api/v1/login", "", body, &session); err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bearer, c.goodUntil = session.Token, c.now().Add(session.ExpiresAt.Sub(info.Now)-expiryMargin)
	return c.bearer, nil
}

// forgetToken drops token unless it has been renewed meanwhile.
func (c *Client) forgetToken(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bearer == token {
		c.bearer = ""
	}
}
