package node

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"skein/node/client"
	"skein/node/gateway/view"
)

// metricsOf are those of n's /metrics.
func metricsOf(t *testing.T, n *Node) map[string]float64 {
	t.Helper()
	resp, err := http.Get(n.assembled().face.url() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		at := strings.LastIndexByte(lines.Text(), ' ') // labels may have spaces
		if out[lines.Text()[:max(at, 0)]], err = strconv.ParseFloat(lines.Text()[at+1:], 64); err != nil {
			t.Errorf("%s: %v", lines.Text(), err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// What a node was asked is counted by that node, and not by another one of the
// same process.
func TestQuestionsAreCounted(t *testing.T) {
	n, _ := founder(t, "counted")
	other, _ := founder(t, "quiet")
	eventually(t, "both have their robot", func() error {
		return errors.Join(lists(t.Context(), n, "counted-1"), lists(t.Context(), other, "quiet-1"))
	})
	c, err := client.New(client.Options{Addresses: []string{"unix:" + n.self.dir.ControlSocket()}, Timeout: 5 * time.Second, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before, quiet := metricsOf(t, n), metricsOf(t, other)
	ask := func(times int, question func() error) {
		for range times {
			if err := question(); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx := t.Context()
	ask(2, func() error { _, err := c.Overview(ctx); return err })
	ask(3, func() error { _, err := c.Alerts(ctx); return err })
	ask(4, func() error { _, err := c.Groups(ctx); return err })
	ask(5, func() error { _, err := c.Robot(ctx, "counted-1"); return err })
	ask(6, func() error { _, err := c.Query(ctx, view.EventQuery{Limit: 1}); return err })
	ask(7, func() error { _, err := c.Decided(ctx, "1"); return err })
	after := metricsOf(t, n)
	for name, want := range map[string]float64{
		`skein_view_queries_total{view="overview"}`: 2, `skein_view_queries_total{view="alerts"}`: 3, `skein_view_queries_total{view="groups"}`: 4,
		`skein_past_queries_total`: 7, `skein_log_queries_scanned_total`: 0,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s grew by %v, want %v", name, got, want)
		}
	}
	// The node looks again while it waits for a robot's telemetry, and asks its own
	// log for the time of a past moment.
	for name, least := range map[string]float64{`skein_view_queries_total{view="robot"}`: 5, "skein_log_queries_total": 6} {
		if got := after[name] - before[name]; got < least {
			t.Errorf("%s grew by %v, want %v or more", name, got, least)
		}
	}
	if now := metricsOf(t, other); fmt.Sprint(now[`skein_view_queries_total{view="overview"}`], now["skein_past_queries_total"]) !=
		fmt.Sprint(quiet[`skein_view_queries_total{view="overview"}`], quiet["skein_past_queries_total"]) {
		t.Errorf("another node counted them: %v", now)
	}
}
