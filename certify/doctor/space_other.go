//go:build !linux && !darwin && !windows

package doctor

import "context"

// spaceOf tells nothing on a system that this program is not tried on.
func spaceOf(string) (Space, error) { return Space{}, nil }

func (r *Report) limits(context.Context) {}
