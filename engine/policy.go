package engine

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mediabolt/mediabolt/storage"
)

// Policy is a retention policy: how long media is kept. The zero Policy keeps it for
// ever. Policies of the same name are equal.
type Policy struct {
	name  string
	after time.Duration // from when the policy is given to a reference
	at    time.Time     // instead of after
}

// PolicyForever is the name of the policy that keeps media for ever.
const PolicyForever = "retain"

// maxPolicyName bounds the name of a policy, in bytes: well past every sensible one,
// since a reference's row has it.
const maxPolicyName = 64

// ParsePolicy reads the name of a policy:
//
//	retain                           for ever
//	retain-30days, retain-12hours    a number of weeks, days, hours, minutes or
//	delete-after-10min               seconds; the two forms mean the same
//	36h, 1h30m                       a Go duration (time.ParseDuration)
//	2027-01-31T00:00:00Z             until a time (RFC 3339), also one that is over
//
// Units are weeks, days, hours, minutes, min, seconds and sec, and the singular of
// each; a day has 24 hours. Numbers are whole and at least 1, durations positive and
// below 293 years, times from 1970 to 9999 in UTC. Everything else is
// ErrInvalidPolicy.
func ParsePolicy(name string) (Policy, error) {
	p := Policy{name: name}
	if name == PolicyForever {
		return p, nil
	}
	invalid := func(why string) (Policy, error) {
		return Policy{}, fmt.Errorf("%w: %.80q: %s", storage.ErrInvalidPolicy, name, why)
	}
	if len(name) > maxPolicyName {
		return invalid(fmt.Sprintf("%d bytes, at most %d are kept", len(name), maxPolicyName))
	}
	if number, unitName, counted := splitCounted(name); counted {
		unit := policyUnits[strings.TrimSuffix(unitName, "s")]
		n, err := strconv.ParseInt(number, 10, 64)
		switch {
		case unit == 0:
			return invalid(fmt.Sprintf("unit %q: want weeks, days, hours, minutes, min or seconds", unitName))
		case err != nil || n > int64(maxPolicyDuration/unit):
			return invalid("that is 293 years or more; " + PolicyForever + " keeps for ever")
		case n == 0:
			return invalid("the number must be 1 or more")
		}
		p.after = time.Duration(n) * unit
		return p, nil
	}
	if after, err := time.ParseDuration(name); err == nil {
		if after <= 0 {
			return invalid("the duration must be positive")
		}
		p.after = after
		return p, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, name); err == nil {
		p.at = at.UTC().Truncate(time.Microsecond)
		if p.at.Year() < minPolicyYear || p.at.Year() > maxPolicyYear {
			return invalid(fmt.Sprintf("year outside %d to %d in UTC", minPolicyYear, maxPolicyYear))
		}
		return p, nil
	}
	return invalid("want retain, retain-30days, delete-after-10min, a duration such as 36h, or a time such as 2027-01-31T00:00:00Z")
}

// Bounds of policies. Zero times mean something else, so early ones are left out.
const (
	maxPolicyDuration time.Duration = 1<<63 - 1
	minPolicyYear                   = 1970
	maxPolicyYear                   = 9999
)

// splitCounted splits the name of a policy that counts units: counted is false for
// another.
func splitCounted(name string) (number, unit string, counted bool) {
	rest, counted := strings.CutPrefix(name, PolicyForever+"-")
	if !counted {
		rest, counted = strings.CutPrefix(name, "delete-after-")
	}
	unit = strings.TrimLeft(rest, "0123456789")
	number = rest[:len(rest)-len(unit)]
	return number, unit, counted && number != ""
}

// policyUnits are by their names without a final s.
var policyUnits = map[string]time.Duration{
	"week": 7 * 24 * time.Hour, "day": 24 * time.Hour, "hour": time.Hour,
	"minute": time.Minute, "min": time.Minute, "second": time.Second, "sec": time.Second,
}

// String is the name that the policy was read from.
func (p Policy) String() string {
	if p.name == "" {
		return PolicyForever
	}
	return p.name
}

// Forever says whether the policy keeps media for ever.
func (p Policy) Forever() bool { return p.after == 0 && p.at.IsZero() }

// Expiry is when media expires that gets the policy at a moment, in UTC to the
// microsecond; zero: never. An expiry past the year 9999 is ErrInvalidPolicy.
func (p Policy) Expiry(from time.Time) (time.Time, error) {
	if p.after == 0 {
		return p.at, nil
	}
	at := from.Add(p.after).UTC().Truncate(time.Microsecond)
	if at.Year() > maxPolicyYear {
		return time.Time{}, fmt.Errorf("%w: %q: ends after the year %d", storage.ErrInvalidPolicy, p.name, maxPolicyYear)
	}
	return at, nil
}

// retention fills in the policy of a new reference, and says when it expires. The
// first of these counts: what the caller said, the store's rule, its default.
func (c *FileStoreConfig) retention(info storage.MediaInfo, m *storage.MediaMetadata, from time.Time) (time.Time, error) {
	whose := ""
	if m.Policy == "" && c.Retention != nil {
		m.Policy, whose = c.Retention(info, *m), "rule of the store: "
	}
	if m.Policy == "" {
		m.Policy, whose = c.DefaultPolicy, ""
	}
	if m.Policy == "" {
		return time.Time{}, nil
	}
	p, err := ParsePolicy(m.Policy)
	var at time.Time
	if err == nil {
		at, err = p.Expiry(from)
	}
	if err != nil {
		err = fmt.Errorf("%s%w", whose, err)
	}
	return at, err
}
