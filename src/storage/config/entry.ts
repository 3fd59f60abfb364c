/** A source in a configuration file: the keys that every server knows. */
export interface SourceEntry {
  /** file, block device, or ram:SIZE; relative paths start in the folder of the file. No options are read behind the name */
  source: string;
  /** bytes of a logical block; default: of the device, 512 for a file. @minimum 512 @maximum 65536 */
  blockSize?: number;
  /** reject writes; default: false */
  readOnly?: boolean;
  /** serve a source that is in use or no raw disk; default: false */
  force?: boolean;
  /** raw: serve the bytes of an image of another format as they are */
  format?: 'raw';
  /** share it with other servers that share it too; default: false. Nothing fences a server whose hosts have moved to another one */
  shared?: boolean;
  /** bypass the page cache (O_DIRECT); default: false */
  direct?: boolean;
  /** what writes of zeroes do: unmap frees space, off writes; default: holes stay holes */
  zero?: 'unmap' | 'off';
  /** operations a second, RATE[/BURST[/SECONDS]], or none */
  iops?: number | string;
  /** bytes a second, RATE[/BURST[/SECONDS]], such as 100M/400M/10, or none */
  bps?: number | string;
}
