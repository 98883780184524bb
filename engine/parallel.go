package engine

import "sync"

// parallelism is how many goroutines share work that waits for commits: enough that
// groups of them form.
const parallelism = 64

// parallel calls fn with every number below n, many at a time, and returns when all
// calls have.
func parallel(n int, fn func(i int)) {
	var next, workers = make(chan int), sync.WaitGroup{}
	for range min(n, parallelism) {
		workers.Go(func() {
			for i := range next {
				fn(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
}
