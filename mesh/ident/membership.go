package ident

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// ErrBadMembership: the membership file is no membership, or was changed.
var ErrBadMembership = errors.New("membership file is not valid")

const membershipFormat = "skein-membership/1"

// Membership is what a node keeps to prove, after a restart and without
// anyone's help, that it belongs to its fleet.
type Membership struct {
	Format    string            `json:"format"`
	FleetName string            `json:"fleetName"`
	Root      ed25519.PublicKey `json:"root"`
	Chain     Chain             `json:"chain"`
}

// NewMembership describes the holder of chain in the fleet of root.
func NewMembership(fleetName string, root ed25519.PublicKey, chain Chain) Membership {
	return Membership{membershipFormat, fleetName, root, chain}
}

// Fleet is the fleet's id.
func (m Membership) Fleet() FleetID { return FleetIDOf(m.Root) }

// Check verifies the chain and that it was issued to holder.
func (m Membership) Check(holder NodeID) error {
	if m.Format != membershipFormat {
		return fmt.Errorf("%w: format is %q, want %q; restore it from a backup, or move it away and join again", ErrBadMembership, m.Format, membershipFormat)
	}
	leaf, err := m.Chain.Verify(m.Root)
	if err != nil {
		return fmt.Errorf("%w: %w; restore it from a backup, or move it away and join again", ErrBadMembership, err)
	}
	if leaf.Node() != holder {
		return fmt.Errorf("%w: it was issued to %s, this node's key is %s; put back the key it was issued to",
			ErrBadMembership, leaf.Node(), holder)
	}
	return nil
}

// Save writes the membership durably, replacing an older one.
func (m Membership) Save(path string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return ReplaceDurably(path, append(text, '\n'))
}

// LoadMembership reads and checks the file. A missing file is fs.ErrNotExist.
func LoadMembership(path string, holder NodeID) (Membership, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Membership{}, fmt.Errorf("read membership: %w", err)
	}
	var m Membership
	if err := json.Unmarshal(text, &m); err != nil {
		return Membership{}, fmt.Errorf("%w: %s: %w; restore it from a backup, or move it away and join again", ErrBadMembership, path, err)
	}
	if err := m.Check(holder); err != nil {
		return Membership{}, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}
