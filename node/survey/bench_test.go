package survey

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"skein/consensus/event"
	"skein/consensus/fleet"
	"skein/consensus/fleet/fleettest"
	"skein/consensus/views"
	"skein/mesh/ident"
	"skein/mesh/member"
	"skein/mesh/presence"
)

// crowd is a fleet of robots of which all are alive and say something.
type crowd struct {
	state   *fleet.State
	models  *views.Views
	ids     []ident.NodeID
	members []member.Member
	reports map[ident.NodeID]presence.Report
	said    int
}

const crowdSize = 1000

func newCrowd(b *testing.B) (*crowd, *Surveyor) {
	c := &crowd{state: fleet.New(), models: views.New(), reports: map[ident.NodeID]presence.Report{}}
	c.decide(b, fleettest.Genesis())
	for i := range crowdSize {
		seed := sha256.Sum256(fmt.Appendf(nil, "crowd %d", i))
		key, err := ident.KeyFromSeed(seed[:])
		if err != nil {
			b.Fatal(err)
		}
		id := key.ID()
		c.ids = append(c.ids, id)
		c.decide(b, event.Batch{Actor: fleettest.Leader(fleettest.Node(0)), Drafts: []event.Draft{event.NodeAdmitted{
			PublicKey: key.Public(), Name: "new", By: event.ByEnrolment, Ref: string(fleettest.Node(100))}.Draft()}})
		c.decide(b, event.Batch{Actor: fleettest.Itself(id), Drafts: []event.Draft{
			event.RobotRegistered{Name: fmt.Sprintf("kiwi-%04d", i), Type: event.LeKiwi, Version: "1", Arch: "arm64", OS: "linux"}.Draft(id)}})
		c.members = append(c.members, member.Member{State: member.Alive, Since: noon, Endpoint: ident.Endpoint{
			ID: id, HTTPPort: 7780, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}}})
	}
	c.say(crowdSize)
	return c, New(Sources{
		Self:     fleettest.Node(0),
		View:     func(f func(*fleet.State, event.Cursor)) { f(c.state, event.Cursor{Seq: c.state.Seq()}) },
		Models:   c.models,
		Standing: func() Standing { return Standing{} },
		Members:  func() []member.Member { return append([]member.Member(nil), c.members...) },
		Reports: func() map[ident.NodeID]presence.Report {
			out := make(map[ident.NodeID]presence.Report, len(c.reports))
			maps.Copy(out, c.reports)
			return out
		},
		Now: func() time.Time { return noon },
	})
}

func (c *crowd) decide(b *testing.B, batch event.Batch) {
	v, err := c.state.Check(batch, noon)
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range v.Events {
		if err := c.state.Apply(e); err != nil {
			b.Fatal(err)
		}
	}
	c.models.Applied(c.state, v.Events)
}

// say is news of the next n robots.
func (c *crowd) say(n int) {
	for range n {
		c.said++
		c.reports[c.ids[c.said%crowdSize]] = presence.Report{AgeMillis: 40, Data: json.RawMessage(
			fmt.Sprintf(`{"cpuPercent":%d.5,"load1":0.4,"memUsedBytes":%d,"memTotalBytes":8000000000}`, c.said%100, c.said))}
	}
}

// BenchmarkAllRobots is the answer about 1,000 robots, all of them alive, after
// so many of them said something new.
func BenchmarkAllRobots(b *testing.B) {
	for _, news := range []int{0, 10, 100, 1000} {
		b.Run(fmt.Sprint(news, " new"), func(b *testing.B) {
			c, s := newCrowd(b)
			var text []byte
			for b.Loop() {
				b.StopTimer()
				c.say(news)
				b.StartTimer()
				text = text[:0]
				for _, row := range s.Robots().Rows {
					text = row.AppendJSON(text)
				}
			}
			b.ReportMetric(float64(len(text)), "bytes")
		})
	}
}

// BenchmarkPicture is one look at the same fleet, as consoles have it.
func BenchmarkPicture(b *testing.B) {
	c, s := newCrowd(b)
	for b.Loop() {
		b.StopTimer()
		c.say(10)
		b.StartTimer()
		s.Picture()
	}
}

// BenchmarkOneRobot is the answer about one robot of them.
func BenchmarkOneRobot(b *testing.B) {
	c, s := newCrowd(b)
	for i := 0; b.Loop(); i++ {
		if _, ok := s.Robot(string(c.ids[i%crowdSize])); !ok {
			b.Fatal("a robot is not found")
		}
	}
}
