//! Images from bytes are, bit by bit, those from the values that the bytes stand for.

use bninception_kernels::conv::{Conv, ConvShape};

use bninception_kernels::dtype::{Bf16, Dtype};
use bninception_kernels::element::Element;
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;

#[test]
fn bytes_are_the_values_that_they_stand_for() {
    let values: [[f32; 256]; 3] = std::array::from_fn(|c| {
        std::array::from_fn(|level| (level as f32 / 255.0 - 0.4 - 0.05 * c as f32) / 0.23)
    });
    for (batch, height, width) in [(1, 7, 7), (3, 33, 18), (4, 64, 64), (2, 224, 224)] {
        let shape = ConvShape {
            batch,
            in_channels: 3,
            out_channels: 64,
            in_height: height,
            in_width: width,
            kernel: 7,
            stride: 2,
            pad: 3,
        };
        let pixels = height * width;
        let levels: Vec<u8> = (0..batch * pixels * 3).map(|i| (i * 157 % 256) as u8).collect();
        let mut images = Vec::new();
        for image in levels.chunks_exact(3 * pixels) {
            for c in 0..3 {
                let of_channel = image[c..].iter().step_by(3);
                images.extend(of_channel.map(|&level| values[c][usize::from(level)]));
            }
        }
        for isa in [Isa::Scalar, Isa::chosen()] {
            for threads in 1..=3 {
                for dtype in [Dtype::F32, Dtype::Bf16] {
                    let team = Team::new(threads);
                    let conv = Conv::new(shape, isa, threads, true, dtype);
                    let check = |what: &str, same: bool| assert!(same, "{what} {shape:?} {isa:?}");
                    check("f32", same::<f32>(&conv, &team, &images, (&levels, &values)));
                    check("bf16", same::<Bf16>(&conv, &team, &images, (&levels, &values)));
                }
            }
        }
    }
}

fn same<E: Element>(
    conv: &Conv,
    team: &Team,
    images: &[f32],
    (levels, values): (&[u8], &[[f32; 256]; 3]),
) -> bool {
    let (mut expected, mut found) =
        (vec![E::default(); conv.image_len()], vec![E::default(); conv.image_len()]);
    conv.pack_image(team, images, &mut expected);
    conv.pack_pixels(team, levels, values, &mut found);
    found == expected
}
