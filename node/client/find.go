package client

import (
	"errors"
	"fmt"
	"strings"

	"skein/node/gateway/view"
)

// Errors of FindRobot.
var (
	// ErrNoSuchRobot: no robot has this id, name or id prefix.
	ErrNoSuchRobot = errors.New("no such robot")
	// ErrAmbiguous: several robots fit.
	ErrAmbiguous = errors.New("not one robot")
)

// maxCandidates bounds how many robots an error lists.
const maxCandidates = 8

// FindRobot picks the one that a person means: the exact id, else the name,
// else the id that starts with which. Of several, those that left or were
// revoked give way to one that is still a member: a robot that was wiped and
// joined again keeps its name.
func FindRobot(robots []view.Robot, which string) (view.Robot, error) {
	var named, prefixed []view.Robot
	for _, r := range robots {
		switch {
		case string(r.ID) == which:
			return r, nil
		case r.Name == which:
			named = append(named, r)
		case which != "" && strings.HasPrefix(string(r.ID), which):
			prefixed = append(prefixed, r)
		}
	}
	fits := named
	if len(fits) == 0 {
		fits = prefixed
	}
	if present := members(fits); len(fits) > 1 && len(present) > 0 {
		fits = present
	}
	switch len(fits) {
	case 1:
		return fits[0], nil
	case 0:
		return view.Robot{}, fmt.Errorf("%w: %q is no robot's name, id or start of an id; `skein robots list` shows them", ErrNoSuchRobot, which)
	}
	return view.Robot{}, fmt.Errorf("%w: %q fits %s; say the id, or enough of its start", ErrAmbiguous, which, candidates(fits))
}

func members(robots []view.Robot) []view.Robot {
	var present []view.Robot
	for _, r := range robots {
		if r.Status != view.Revoked && r.Status != view.Left {
			present = append(present, r)
		}
	}
	return present
}

func candidates(robots []view.Robot) string {
	var texts []string
	for i, r := range robots {
		if i == maxCandidates {
			texts = append(texts, fmt.Sprintf("%d more", len(robots)-i))
			break
		}
		texts = append(texts, fmt.Sprintf("%s (%s)", r.ID, r.Name))
	}
	return strings.Join(texts, ", ")
}
