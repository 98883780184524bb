package adopt

// WithPoints has a test told where the adoption is.
func WithPoints(o Options, told func(name string)) Options {
	o.point = told
	return o
}
