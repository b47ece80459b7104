package survey

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"skein/consensus/fleet"
	"skein/mesh/ident"
	"skein/node/gateway/view"
)

// maxChanges bounds the answer of Diff.
const maxChanges = 1000

// Diff is what is otherwise at moment b than at a. Join tokens are left out:
// they say nothing about the fleet, and there may be many.
func (s *Surveyor) Diff(ctx context.Context, a, b view.At) (view.Diff, error) {
	from, err := s.at(ctx, a)
	if err != nil {
		return view.Diff{}, err
	}
	to, err := s.at(ctx, b)
	if err != nil {
		return view.Diff{}, err
	}
	d := view.Diff{From: *from.asOf.At, To: *to.asOf.At, Changes: diff(things(from.State), things(to.State)), AsOf: to.asOf}
	if len(d.Changes) > maxChanges {
		d.Changes, d.More = d.Changes[:maxChanges], true
	}
	return d, nil
}

// thing names what a state holds.
type thing struct{ kind, id string }

// facts are what is known of a thing: its name for people, and its fields as
// text. Equal texts are equal fields.
type facts struct {
	name   string
	fields map[string]string
}

// diff compares two states. It is pure.
func diff(a, b map[thing]facts) []view.Change {
	var changes []view.Change
	for t, before := range a {
		after, there := b[t]
		if !there {
			changes = append(changes, view.Change{Kind: t.kind, ID: t.id, Name: before.name, What: "removed"})
			continue
		}
		if fields := diffFields(before.fields, after.fields); len(fields) > 0 {
			changes = append(changes, view.Change{Kind: t.kind, ID: t.id, Name: after.name, What: "changed", Fields: fields})
		}
	}
	for t, after := range b {
		if _, there := a[t]; !there {
			changes = append(changes, view.Change{Kind: t.kind, ID: t.id, Name: after.name, What: "added"})
		}
	}
	slices.SortFunc(changes, func(x, y view.Change) int { return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.ID, y.ID)) })
	return changes
}

func diffFields(a, b map[string]string) []view.FieldChange {
	all := maps.Clone(a)
	maps.Copy(all, b)
	var changes []view.FieldChange
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if a[name] != b[name] {
			changes = append(changes, view.FieldChange{Field: name, From: a[name], To: b[name]})
		}
	}
	return changes
}

// things is everything in a state.
func things(s *fleet.State) map[thing]facts {
	all := map[thing]facts{}
	if f, ok := s.Fleet(); ok {
		fields := map[string]string{"name": f.Name, "history": f.History, "ceiling": number(s.Ceiling()), "recoveries": number(s.Recoveries()), "gossipEpoch": number(f.GossipEpoch)}
		if seal, ok := s.Seal(); ok {
			fields["sealed"] = number(seal.Seq)
		}
		all[thing{"fleet", string(ident.FleetIDOf(f.Root))}] = facts{f.Name, fields}
	}
	for _, n := range s.Nodes() {
		all[thing{"node", string(n.ID)}] = facts{nameOf(s, n.ID), map[string]string{
			"name": n.Name, "admittedAt": moment(n.AdmittedAt), "by": string(n.By), "revoked": yes(n.Revoked), "left": yes(n.Left),
			"voterEligible": yes(n.VoterEligible), "voterApproved": yes(n.VoterApproved),
		}}
	}
	for _, id := range s.Voters() {
		all[thing{"voter", string(id)}] = facts{name: nameOf(s, id)}
	}
	for _, r := range s.Robots() {
		all[thing{"robot", string(r.ID)}] = facts{r.Name, robotFields(r)}
	}
	for _, g := range s.Groups() {
		all[thing{"group", g.Name}] = facts{"", map[string]string{"description": g.Description, "createdAt": moment(g.CreatedAt), "robots": join(g.Robots)}}
	}
	for _, p := range s.Persons() {
		all[thing{"person", p.Name}] = facts{"", map[string]string{"key": string(ident.IDOf(p.PublicKey)), "scopes": join(p.Scopes)}}
	}
	for _, e := range s.Enrolments() {
		all[thing{"enrolment", string(e.ID)}] = facts{"", map[string]string{"revoked": yes(e.Revoked)}}
	}
	return all
}

func robotFields(r fleet.Robot) map[string]string {
	fields := map[string]string{
		"name": r.Name, "type": string(r.Type), "version": r.Version, "arch": r.Arch, "os": r.OS, "hostname": r.Registered.Hostname,
		"online": yes(r.Online), "groups": join(r.Groups), "registeredAt": moment(r.RegisteredAt),
		"state": string(r.Lifecycle.State), "failures": number(r.Lifecycle.Failures), "lastFailure": r.Lifecycle.LastFailure.Message,
		"deployment": r.Deployed.Deployment, "deployed": r.Deployed.Version, "deploymentStatus": string(r.Deployed.Status),
	}
	for key, value := range r.Labels {
		fields["label "+key] = value
	}
	return fields
}

func yes(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func join[T ~string](texts []T) string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = string(t)
	}
	return strings.Join(out, ", ")
}
