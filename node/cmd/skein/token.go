package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"skein/consensus/event"
	"skein/node/client"
	"skein/node/gateway/view"
)

const (
	defaultTokenTTL = 10 * time.Minute
	maxTokenTTL     = event.MaxTokenSeconds * time.Second
)

func (a *app) tokenCommand() *cobra.Command {
	return group("token", "Make one-time tokens with which robots join", nil, a.tokenCreate(), a.tokenList())
}

// newToken is what `skein token create --json` prints.
type newToken struct {
	view.Token
	// Command is what to type on the robot.
	Command string `json:"command"`
}

func (a *app) tokenCreate() *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{Use: "create", Short: "Make a token that lets one robot join, once", Args: exactly()}
	cmd.Flags().DurationVar(&ttl, "ttl", defaultTokenTTL, "how long it is good, 1s to 168h")
	return a.asking(cmd, func(ctx context.Context, c *client.Client, _ []string) error {
		if ttl < time.Second || ttl > maxTokenTTL || ttl%time.Second != 0 {
			return usage(fmt.Errorf("--ttl %s must be whole seconds, from 1s to %s", ttl, maxTokenTTL))
		}
		token, err := c.NewToken(ctx, ttl)
		if err != nil {
			return err
		}
		result := newToken{token, "skein join " + token.Token}
		return a.print(result, func(w io.Writer) {
			fmt.Fprintf(w, "%s\n\nOn the robot, until %s (for %s, once):\n  %s\n", clean(token.Token), token.ExpiresAt.UTC().Format(time.RFC3339), ttl, clean(result.Command))
		})
	})
}

// tokenState is one join token, put together from its events. The token itself
// is a secret and is not in the log; its hash names it.
type tokenState struct {
	Hash      string    `json:"hash"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	// State is "open", "used" or "expired".
	State string `json:"state"`
	// UsedBy is the id of the robot that joined with it, or "".
	UsedBy string `json:"usedBy"`
}

func (a *app) tokenList() *cobra.Command {
	return a.asking(&cobra.Command{Use: "list", Short: "List join tokens and who used them", Args: exactly()},
		func(ctx context.Context, c *client.Client, _ []string) error {
			list, compacted, err := tokens(ctx, c, a.now())
			if err != nil {
				return err
			}
			a.warnCompacted(compacted)
			return a.print(map[string]any{"tokens": list}, func(w io.Writer) {
				rows := [][]string{{"HASH", "CREATED", "EXPIRES", "STATE", "USED BY"}}
				for _, t := range list {
					rows = append(rows, []string{t.Hash, t.CreatedAt.UTC().Format(time.DateTime), t.ExpiresAt.UTC().Format(time.DateTime), t.State, t.UsedBy})
				}
				table(w, rows)
			})
		})
}

// tokens reads every token's life from the log.
func tokens(ctx context.Context, c *client.Client, now time.Time) (list []tokenState, compacted bool, err error) {
	list = []tokenState{}
	at := map[string]int{}
	compacted, err = eachEvent(ctx, c, view.EventFilter{Type: event.TypeTokenCreated}, 0, func(e view.Event) {
		var data struct {
			TTLSeconds int64 `json:"ttlSeconds"`
		}
		if json.Unmarshal(e.Data, &data) != nil {
			return
		}
		t := tokenState{Hash: event.Subject(e.Stream), CreatedAt: e.Time, ExpiresAt: e.Time.Add(time.Duration(data.TTLSeconds) * time.Second), State: "open"}
		if !now.Before(t.ExpiresAt) {
			t.State = "expired"
		}
		at[t.Hash] = len(list)
		list = append(list, t)
	})
	if err != nil || len(list) == 0 {
		return list, compacted, err
	}
	_, err = eachEvent(ctx, c, view.EventFilter{Type: event.TypeNodeAdmitted}, 0, func(e view.Event) {
		var data struct {
			By  event.Admission `json:"by"`
			Ref string          `json:"ref"`
		}
		if json.Unmarshal(e.Data, &data) != nil || data.By != event.ByToken {
			return
		}
		if i, ok := at[data.Ref]; ok {
			list[i].State, list[i].UsedBy = "used", event.Subject(e.Stream)
		}
	})
	return list, compacted, err
}
