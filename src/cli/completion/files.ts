/** The shells that are completed, and the file of each below completions/. */
export const completionFiles = { bash: 'vioctl.bash', zsh: '_vioctl', fish: 'vioctl.fish' } as const;
