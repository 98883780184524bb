//go:build !unix

package doctor

import "context"

// permissions says that there is nothing to say: access is by lists here.
func (r *Report) permissions(context.Context) {
	if r.Store {
		r.add("permissions", Note, "", "who may read and write is not looked at on this system, only whether this process can")
	}
}
