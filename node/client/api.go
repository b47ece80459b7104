package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"skein/mesh/ident"
	"skein/node/gateway/view"
)

// expiryMargin is how long before its end a token is renewed.
const expiryMargin = 30 * time.Second

// backupType is the media type of a backup.
const backupType = "application/vnd.skein.backup"

// about asks a question about the fleet, as fresh and of the moment that the
// options say.
func (c *Client) about(ctx context.Context, path string, out any) error {
	return c.get(ctx, path, c.moment(c.fresh(nil)), out)
}

// fresh adds to a query how fresh the answer must be.
func (c *Client) fresh(query url.Values) url.Values {
	if query == nil {
		query = url.Values{}
	}
	if c.read != "" && c.read != view.Local {
		query.Set("read", string(c.read))
	}
	return query
}

func (c *Client) moment(query url.Values) url.Values {
	if c.at != "" {
		query.Set("at", c.at)
	}
	return query
}

// Fleet asks for the fleet's header: leader, term, voters, how many may fail.
func (c *Client) Fleet(ctx context.Context) (out view.Fleet, err error) {
	err = c.about(ctx, "/api/v1/fleet", &out)
	return out, err
}

// Robots asks for all robots, those that left or were revoked too.
func (c *Client) Robots(ctx context.Context) (out view.Robots, err error) {
	err = c.about(ctx, "/api/v1/robots", &out)
	return out, err
}

// Robot asks for one robot by id, name or unique id prefix.
func (c *Client) Robot(ctx context.Context, which string) (out view.OneRobot, err error) {
	err = c.about(ctx, "/api/v1/robots/"+url.PathEscape(which), &out)
	return out, err
}

// Nodes asks for all admitted nodes as the asked node's gossip sees them.
func (c *Client) Nodes(ctx context.Context) (out view.Nodes, err error) {
	err = c.about(ctx, "/api/v1/nodes", &out)
	return out, err
}

// Groups asks for the groups of robots.
func (c *Client) Groups(ctx context.Context) (out view.Groups, err error) {
	err = c.about(ctx, "/api/v1/groups", &out)
	return out, err
}

// Decided asks for the whole state in figures, at a moment or, for "", now.
func (c *Client) Decided(ctx context.Context, at string) (out view.Decided, err error) {
	query := c.fresh(nil)
	if at != "" {
		query.Set("at", at)
	}
	err = c.get(ctx, "/api/v1/state", query, &out)
	return out, err
}

// Diff asks what is otherwise at moment b than at a.
func (c *Client) Diff(ctx context.Context, a, b string) (out view.Diff, err error) {
	query := c.fresh(url.Values{"a": {a}, "b": {b}})
	err = c.get(ctx, "/api/v1/events/diff", query, &out)
	return out, err
}

// Raft asks the node that answers for its own part in consensus.
func (c *Client) Raft(ctx context.Context) (out view.Raft, err error) {
	err = c.get(ctx, "/api/v1/raft", nil, &out)
	return out, err
}

// Events asks for at most limit events (0: the server's own limit) after seq
// since that match filter, oldest first.
func (c *Client) Events(ctx context.Context, since uint64, filter view.EventFilter, limit int) (view.Events, error) {
	return c.Query(ctx, view.EventQuery{EventFilter: filter, After: since, Limit: limit})
}

// Query asks for events, oldest first also when the newest are asked for. A
// Limit of 0 is the server's own.
func (c *Client) Query(ctx context.Context, q view.EventQuery) (out view.Events, err error) {
	query := c.fresh(url.Values{"since": {strconv.FormatUint(q.After, 10)}})
	for name, value := range map[string]string{"stream": q.Stream, "type": q.Type, "actor": q.Actor} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for name, t := range map[string]time.Time{"from": q.From, "until": q.Until} {
		if !t.IsZero() {
			query.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.Before > 0 {
		query.Set("before", strconv.FormatUint(q.Before, 10))
	}
	if q.Newest {
		query.Set("newest", "true")
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
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

// TransferLeader makes the leader hand over to a voter, or for "" to whom it
// chooses. It has to be asked of the leader: others answer "not_leader".
func (c *Client) TransferLeader(ctx context.Context, to ident.NodeID) (out view.Transferred, err error) {
	err = c.post(ctx, "/api/v1/raft/transfer", view.Transfer{To: to}, &out)
	return out, err
}

// Step asks for a step in a robot's life: activate, deactivate, maintenance,
// maintenance/end, recover, retire (with a view.Why), provision (view.Provision)
// or fail (view.Fail).
func (c *Client) Step(ctx context.Context, robot ident.NodeID, step string, body any) (out view.Done, err error) {
	err = c.post(ctx, "/api/v1/robots/"+url.PathEscape(string(robot))+"/"+step, body, &out)
	return out, err
}

// CreateGroup makes a group.
func (c *Client) CreateGroup(ctx context.Context, g view.NewGroup) (out view.Done, err error) {
	err = c.post(ctx, "/api/v1/groups", g, &out)
	return out, err
}

// DeleteGroup deletes a group; its robots stay.
func (c *Client) DeleteGroup(ctx context.Context, name string) (out view.Done, err error) {
	err = c.change(ctx, http.MethodDelete, "/api/v1/groups/"+url.PathEscape(name), nil, &out)
	return out, err
}

// AddToGroup puts a robot into a group.
func (c *Client) AddToGroup(ctx context.Context, name string, robot ident.NodeID) (out view.Done, err error) {
	err = c.post(ctx, "/api/v1/groups/"+url.PathEscape(name)+"/robots", view.GroupRobot{Robot: string(robot)}, &out)
	return out, err
}

// RemoveFromGroup takes a robot out of a group.
func (c *Client) RemoveFromGroup(ctx context.Context, name string, robot ident.NodeID) (out view.Done, err error) {
	err = c.change(ctx, http.MethodDelete, "/api/v1/groups/"+url.PathEscape(name)+"/robots/"+url.PathEscape(string(robot)), nil, &out)
	return out, err
}

// Backup writes a backup of the fleet's log to w. It takes as long as ctx lets
// it. What was written when it fails is no backup.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	return c.ask(ctx, request{method: http.MethodGet, path: "/api/v1/backup", sink: w, kind: backupType})
}

// Leave makes the node that answers leave its fleet and stop. Over the control
// socket the machine's own user may do that without being an admin.
func (c *Client) Leave(ctx context.Context) error {
	var out view.LeaveAnswer
	if c.local {
		ctx, cancel := c.limit(ctx)
		defer cancel()
		return c.send(ctx, request{method: http.MethodPost, path: "/api/v1/leave", body: []byte("{}"), out: &out})
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
	if err := c.send(ctx, request{method: http.MethodGet, path: "/api/v1/login", out: &info}); err != nil {
		return "", err
	}
	body, err := json.Marshal(view.SignLogin(c.identity.Key, info, c.identity.Person))
	if err != nil {
		return "", fmt.Errorf("encode login: %w", err)
	}
	var session view.Session
	if err := c.send(ctx, request{method: http.MethodPost, path: "/api/v1/login", body: body, out: &session}); err != nil {
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
