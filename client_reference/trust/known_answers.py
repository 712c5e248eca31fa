"""Signatures made once by the real libraries, one for each key type that this client verifies.

Data for `selftest`: PUBLIC as it stands in TUF metadata (PEM without its first and last line), and
the signature in base64, over MESSAGE. The private keys were thrown away.
"""

from __future__ import annotations

MESSAGE = b"firmroot known answer"

# (keytype, scheme) -> (public, signature)
ANSWERS: dict[tuple[str, str], tuple[str, str]] = {
    ("ed25519", "ed25519"): (
        "d638511a1f78b5c7c6f4b525d345e13da9bdff143710cf4322444ee5d2fc15f7",
        "Z08oZQKXKu76PNMoFL9gRO/oQzRZ5RKXfdRij4b684p/YHlhJ3LYHrY4cZeOMT0z4p5/qSCMKPWr8BeVfRw3AQ==",
    ),
    ("ecdsa", "ecdsa-sha2-nistp256"): (
        (
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEtKKnooA8UGP2Vi3R/lvVRs9dqT6N9uQ/KbjqZZ3SsX67"
            "sm3fA5BrkgH5epIBvNprTYF66Fendl9Yxna/T/M0EA=="
        ),
        (
            "MEYCIQDqmtPwuS73apViWFZY8aC4eT+RK4RpWGS+JE9IS+h8aQIhAImRG11n3tGhcPRbaNCbGfjMA7Kl"
            "Rnd2ishcGKjDgNrd"
        ),
    ),
    ("ecdsa", "ecdsa-sha2-nistp384"): (
        (
            "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEbW3sDVHQK5ESW5bRmyb7hZliMIO87CJx6Fy3WFHafrMLNGwD"
            "DNyOYxVKn1FNGfaNpb+3GJ7H9+ihKWaq6LlHESxbBL+XPXKOo1Hn28Cvd23XKxacid3tMINcNKXcA760"
        ),
        (
            "MGUCMQCBrbVJ7RDNvu8XkztGZVUUwxEQb2aMWfadMju6IN6sr6Mro4nBFPTvvUIZmnfCd/YCMG/hkf+L"
            "wmP6gw35IxFyUybR2rk8cSJkTCCsg3YZd6pLnlhdiveifqdj7AC8f/Gzxg=="
        ),
    ),
    ("rsa", "rsassa-pss-sha256"): (
        (
            "MIIBojANBgkqhkiG9w0BAQEFAAOCAY8AMIIBigKCAYEAocJ31QAum2x5QTwIgFZHpa8aEbXN4ZJzuww1"
            "BUN3FimcKMcS8l/ljc8Rl14vqoSHXVIzEdyXmZQShR4fYmpDni5MkDVNNCh1yowKyQ4zJv3nQoRQeF6E"
            "rtWCQQn0sNHFPsgNC90Emw02O9Oq7m807V62SdTrrzYmb1mf3hLIAFKgmBZfDY9YnS0CMFeklAJSzF1N"
            "n2jAvH1QP/RHIz1ANkyTHYEC7h8gCcHelUISZqYun2lyOqIPjmOaeFNrIwSgO3C6UjQnKFdmUruCeOOR"
            "UGIWjhLqLLD9HrQ+4z0X0zAFc0L301fXesMf2jpQnfQdkWcuuJMXqcFt6EBuIoKdCtQr9Cx0G5jEQ1Ia"
            "zu0Wn/udwkdNsTJW5JTDFJz2P3uSDitdf7S7M1CNBmVH6O2S3ac0RZNaU7jqbAdLZKR+S0HYbx+L0HMI"
            "CAfCfLKj2CnxeLLBuvEOrDw4b124vSZBKvZtfAr8QTyE00hUdTJ7qKVSlaTOLRcR9NF+FNS1Nw8NAgMB"
            "AAE="
        ),
        (
            "YFLbtmkc4xO0sosLqHntTwa17tUFTPg9KzxdBZ7YHzql7Mhrl7CMHqMR1eYUh9vFTkWYZEfLSksy0UxQ"
            "DjDrXFBe79h6EhjkslYD8UNA2Zz08amwoxMsBjPJSOP/HWYu4M4tjLlONlqvdFN9FCeYn/FURShENBdh"
            "A78GpR+z4tY3TkHakzv1t3z3uzgeI8c6Dln/cfumsHj0F8rYlBVRi/M7RMlPBvXjS0n9Ee3ubB4lDoiS"
            "Q6Eo43AaxayQyxvfUCS0XVrhoZqAqmSXaCF6ywhru4VfjlcEU4dCzP55IOTwm2JbJ17o3ToYjguAmwxz"
            "k9wgbtV1sauGWXWYdOSwX9Ls2XnEJ1tbDkmj8NLXabPAsZlVsgVP0DrQU/9S1PHus/7I4kmpGB8/SjSt"
            "Bbvr5Oc4GkIfrhBtafIbWCeIjwZAdASvn5WfY3gsSnJk0g2iY8XWZ9Nx3pXkvKj76LIw7FbBZPe0U9YY"
            "EKiCtrrxwza6hAWub7n6xxhG5ofW4jlS"
        ),
    ),
    ("ml-dsa", "ml-dsa-65/1"): (
        (
            "MIIHsjALBglghkgBZQMEAxIDggehAPEseX9E0MuOgCeyFFVwekYvnBVoFLhy8DDGRzhbn6FGnykyzMsm"
            "Z7LvRX+9fquhLRF60gXzmLFYLdr1A8+BUj6xzyH/4ObjlLKvPLerbbu+VdLpmSXbfusRI4bAYw8R/uP8"
            "WzMEIZEtN0UZBjCfnTLhuuWh7p0hkQGx1M1GxA22JdAAgLpVFLeaGyMHNZ9or/TYmTcS6IQBb3MA+X7h"
            "GCGNlNE9e/56O8K8xxUMrNC03HxDHE8xki+h0SX8feDMJmg9sVQKDoS9imaLVL1+xFuEmTeLQU3Nstzj"
            "POSXPlgGPg4xC9XZeskc2oAOzWqkSLLNAVcF29igscnKGE8vShOogkskMObT6T/2jbiy2ViRYl9D/Kw6"
            "6hIWhdJpBV2nLEcxysHskO+gWSiR9tTX74TFyQD4meu/f4X7h6/lxuiakljPpQHDNP4E2a2VBGB16Hhn"
            "spQFfpGsvSUJZ1ex10KKn/fEp0f/DW67bUjyZ5CPWyl9fdlXyMSaz7LmLgu92pM4pzPjxXpaqyXkPAjk"
            "rvHACTNZo4+dFJNNBo5R2h4ycnrIEKafPs+G0u3UBOcAVIzxfVawP4iIkR++nf2vbIAek+aBweyPQjPm"
            "OeyWU1UNFmtrF5+TBI3D8FkwQDdZlbd/Pgly5aO7iWyPv/jIugf29ML0ZacjBp11zWfDFm5BzNH3vjD1"
            "ZOE2Vmk3iRnE83hsnoQR9cJlyrs5Nbq2qE4YXtztaBjqYXkvro5L2C6q0MdB5PvyHYLUUKh9RvZii96g"
            "YhrpSHgBshiFjiK2WrApzWwBu6UbtL+WbRWV54sB8UicmGUWW8DfhxpnO3JKlbX4aixup+4dGPPUeQ09"
            "jSPclMp+235IZueCuNb77UM9dqxvD2Um5k55x5EEDd23tjm+mxPqVHqkZ/XblbNmjZQt10PhC4u64iFd"
            "oKLN1cex62NRIztTOm4TdHZpha1zsUZr7jJ5ZmKmLhGb9sdEeDqlBFWMkSUjIzXxfIRukVyQMFn/HhkT"
            "XdtVsFQjaSB5IwyB3ZQANh0LA/NDkQkjDOe83WdDQMwzKTK199tsSm73R4KThgWYyBsL38oHcUNkX2U1"
            "PyX5XsKLUzg7SEPmRkzFwgIBOI4Wj/3U9StpGxf6JWBhUkmRIA/9npV+6impWnzUvbdwM/YlcAFVxXdw"
            "GZkLqKhP3rXKT+dPnbhTj97K4hscaz2VDsnuBibJv6M999Q0nU1bjWThOEVX2mvHRbYJCDXj9bXq+/Uk"
            "2jCF5sanK032SRZkHPHHOrpaqhPOlyuQXGk7TyCLpHz77ZzolGNO+1JB4I+6Vq1bHNJXZ4LVX6cI4hvH"
            "pzUSjRADlPOzpANCGD2m5ssy/K8qizeaU/GbTlGgFX/K6EXV6TkI2KUPoLiT/hpjBx20W6322Pbnb4Nu"
            "aeNtDxB0SI+8158Szy9Z5Q+45qU0ug7U0cVKZzJhEU054DQRWCuX815L/smVPOxW6+x41F493qUP7F1W"
            "HC0GQDFzjWyP7MIIJrZFGbp6VUZRaUkcXlMGAuzuxQBBC36/8jAE5qZysLC/+DmXMtTWqtf7+5a22TAs"
            "Kgu4tsfm/JMyKZpJtj26g8NlQ2APOr97ysTXRrb67aJL2144bJxrHxPeq+fF7oHIy88Oi5a7xR0/fS1Y"
            "eRB0m/40qgv49sbJvbOTjMAC9MHY0zE0YBU0iFJj3ELumwMlpwRa4j9jLvTkdV+EQbwIUIWXdXM12PTe"
            "irs3y5ZdAsf3VhMyqlPHqd7ec51XlL03ElNxvMOym3zKYbvPo2osPxflgGliqd6LukMxsUe0/Ovp6Nkf"
            "LuNyLuQc2z8j6wyEfDovyipMXqE6OUF5ATbZg+s+TRhAL8xo5dVYmwbmj1bYezWRLXRYq3KFEKi04xhR"
            "6G7/cUTm3kBWw6H60/PEjoqmn46+jyyEZ9qRaJYdxuhjSpEu9PUyPBDBsVYEQWwd172omc9Tf/D1Lwol"
            "2EF2P5g35P5laUbDBmwZQhQZR1HLlSmL0xZMv4i9TR5xJJyjymxijBd1fcsGbGKL7x4IezD0VLmon3H3"
            "58LKZUWYmL/lZVnnHgecFUqPUszpLdsON+EzCy13ar4wW5umzqH7SWF8YNjp+E5vZRdKKJmSO7ZOp79A"
            "MOeMCP0NKRbdQrF+dOkKTf1INhEvYrIGbIlVLOCJOmQn4VEwvSvCLxXAB6zGccroTVAjwZyGfJgD2sNR"
            "s786pXN9zaZv11hZo25Zl669NJLPXwBZ2pYfNy3AXEcXkq7/ygIqg6sZmWZUHPFA+70NYY2K3nXT8tUF"
            "/HKWffzbZOO64d+e+DZE+MGkYSOjn9dZ1DMboCWVf1fdG0Ty6TAikiVFHITZ/FT5PQTsm2LEr8uIeBCu"
            "HH8TgCmNCRUjVbmKybQVDPem/LQaHretF3fT3/3YmrUb5T6n26dmpZy6d6Fq4zockbtfUFwPJpSjuP+0"
            "8Ay/v66glhNVIV1GL6tYNdH2QDNfJd+j1kffjXtKvo2ONkP/rPSWr9FmLTUVxD7SbMQOEOu8GCftRQVM"
            "pxdYAkqfQQs2cj7/8qVQ1uD6KLkekAXkygfn/NBw7dCb+pRr64fN8xkJN75qqJq5GLhtfDBt"
        ),
        (
            "Hw9IixSA329CUA/xPeDJpQMS8FiHIDH2ATHqXcZYfZ2+dOno7iasQhFJNGRKtuK9Mo3hWsYGcmALd7ZL"
            "TbkvBmHopJltH37lZ6H0an0kPJEqwWB1cfxJcnOnPIMF3yqhZYx2yYQ7YnAALpzeE+V3XFC3EcmEZJ4t"
            "AM3iPfo7nJiAdJLrHW69E8t534k2d0CtfZlVDI0p2yqucwofsqQU4QgztuNI76eQrgPESYHAaN6geGwp"
            "WuCi3RtJxvB6/8PO9XdKOvL4AEFyBqxcBNIxuRh+cvzxIvUIqLbmDuv9RVbgOEtP7+135yAiA0qtigLj"
            "CCY04bjfadQ84nfaM+7ygFbAw9Lu6ag6E4UFKoNZfaO0W+eK+PWxsdmK6rDhpf0LIb99qTIzORYS1wq5"
            "KLuahasxiGXlIdOGnlRHx562LDfeNwMLMrQpWykdMLN2i8C7U+IkFxQ0thOd1coOo+T/9oUJ5XiQ15k2"
            "9mWNIWy7QpY6+bBSN/1J7vcX5bMR7XSBeEgd0omzsrzrux15ckLwWG0vPb/TTN2HK5/hOsT57DoEtUhJ"
            "M/sViWK7sSW4eNEP6hWtjmfc46NHOFmDIBnkFvEBWsyQBDy0zpyd69ELmc4mzfNBKQKBZeUX96bjuwNT"
            "iyLDTnkPJPDO31B/BtVuTRPqZ7bq+Hi3RWDItfOAiIP83rp9cJ8KhzTkuimGvqlDP/ftZ/TSIAEXQKrJ"
            "zn/w0Q9Cjaj2T7IZxCxPq4+q6Vo7uHmBMlFiHWLr+0QzeybylH0yyAM3h0DdMhzqtFJ/cpbxM4GsFsN8"
            "NiR29QCGQMVKrj8ke4aiSf6BJtmzEyqK1Zqsvp0VVbyBazo+ScZZC+MlHP+ljS8y3rQn7xEQGhRhx+jM"
            "8FiyStfRA2xe+ilC5UDDMx3SDqmXdc6uq+eIpk4bB3/6xyiyi9IDoITwENlNG4aYYjLyHlPCgYr0J4Ox"
            "Yw6QF5o7pgOAGP8jqD9nMuR21gqyi485YkdA1DZtupvvN+yc0X+t6bXB4mfpM1oSwLsjy0munWNRd9ZR"
            "n+CY8NClxB+Q0kHKJ/THqKB2ZSiaVCECTf6ULedVHyZewtVyg5au8EqUB+BzHX140Zf1bTHmvGEuJvnw"
            "whDYmHxOQhAK1N6MyTbpMZ+z0nquVJAIgDtZnaBlrtMLCBuX42AoFbszIIetPJn3HewQYWQozPki1NsJ"
            "94VF+xq1bm13ftWTsAJxN1Y27ojk4tQS1xnVUqlkamsFv59k5PvRfJinVj+NfTCemOS/Q4QTRwhuviNW"
            "pib9mymF01Yle6mIiw82T7pxkvOawes+UkCXzFlijv0w2nFJ511IYsnj5wUV2DQ+c+4dyVUtyitdz5rU"
            "A4a/MnfyGAadAJ1vtvfw8NhfUzm+GpRTomhkvPbeG+GGHdQkjmT3UnrUjf2aSJ7pANdXdHYDJYUfEqWy"
            "8K6I3lW1aAr7K4bD8mbzlbOvtQVDhMaYsqAZwTpWrcaJZClE5a0pM5XNQlDT/eA59GKoPTO3Nx5PJ3xJ"
            "b2KzetOOpgZvNu/AashYWUaXkt6ANstinrLysNwR9B4dL8eeXKlwU/YaxLASeeseUwz23apHK1ReQnqZ"
            "mt2NGwBrsT7Ag+bc4evlaRKLZFU4XDBHIEqDvO6JziZbABiHzrwwF4SPUMJrSmdhJHKQoM+aj5yZhZu1"
            "hwV+BNsgaOJASNqYEvYmDORgefDTX5ejUg6p4FHAAb9XNf/iHU9Zn9xt7TwS3oPt1E3RsJkJzKJ+AxTS"
            "vpZQ+gslxNqDDERhK4JftjnvdbNe2RL0/vTwjMwhX/AmJ3XAvta1czvu5iyW9z8Y2umEpWnG0IIgA+7f"
            "fOGwyBjn9h8GvzWX2ehI7EmV7nnQLXHFhBXLSRAQeN0VWKnGSB7j0LK75HGnOWtOjOWDgTqfnImdaDhG"
            "nEhHp0DjyVhhrZsad26fwQRNLb3U/NVmCJpYNcXIMrpyLnzkDP3sSB3AnQtwy+J6DQU7QHfNiaSBuLE3"
            "X1xRD/JL7UyJaHmqoSNpW33R5phqdIpicQLeQXAAfRkPqES2GBBE7Baf+5CIIL/GsuMkO5sPAmewZszN"
            "eCoAaqLX/3OBVgzIfrcQwfrrFVY5SdyNfh/NZNiwHO7T3o07uC82vjFNyaUPSu6asvnzNqm8QGsJlOLs"
            "pzgZzvu860q3JXaY52hz6DRpDjjrBI9AcKZ7DbdDRwxYsdM4k1xDuW9onHFUgXPhKDR4pzb1p493Xkw/"
            "YcSGQo3AAxx6DULzwocRtT8QxQe/S28xk9ZzcrpMh219adkZNpeJoDXB55EV9ycs8R10AfgLuwVS6eKY"
            "WLizBPP9bMVlnvKURTAwVXYboLLwmdQ4DqF+V1jQYS7i+/vytFdp0568Wm6QkpxxOyN5Ao4wmndmBkux"
            "ZSRbYBRVBSzz6n2SPnyOxHSt5DuV2Nt41chbABsDCwyS32sKKLE2hycLEnf+Ke1TO3f8egCIXs8Dlvqo"
            "QBymDI2dAonD8qawTTVJD4yfs76+9kWwgNRXpRpHUA4S3Ted1Ay//bOmAYq7c7XUYdhOrjgBRyk8HDGZ"
            "sF2sPnz3fsbXEb7ocOectAifsJplVe0auRn14CH7o/PAIVT/O8mJXrEwDoADN3BJRj7rKcaPDhFBi12K"
            "pqxiKHEg/I7F9o7HLgaDbhySlK9llkinLS2OXfnnTRTPD0G/5JMacaGp7LlJnufXP8GynF8S5AzEjL3l"
            "/MMjKWhFHCRONsNvDql/p0+oMhPFP5IbKfDgthKpf3K56XPJ719Q0S3rQLxfczzFNgrszIplNNTYaRww"
            "ayxHh4H5eaSga4mlV1624oLwPtOnhqT2ecBblFOseWL+ibONtMTVu2CrK8JQKqDrVtsPqXVFhJD3LW6B"
            "16cAGHoX78iy9vghSXNphvYvirYSI1XgNXXu+V7z+5KybURMynNBkXBOTmB3VMJtKE8hAK7ZxhkSkw64"
            "qRzGCE6jUPxgwit3NRMaXtNGnEO1bqW1IQ5Ihbfym+yo2j74RMRzzy3NCa6NR6I59o0UeNSL+YwF9ZgM"
            "9HEKfZqL8JdPFOvb1Pi5iRt3mvYsg4/XLmtaUAt2OPd/w5jnhSsprsN1YGVM49trkMe/V9PoTEZK6qUl"
            "a4XDq8WOXTwpRHIPzdtLWwtN9rXUGy47N1uLkiBSpi9KTDQJJc/UD7YyrlA7JvCMsH78n66VIHm/GN8Q"
            "qzv6AX/NNYOKfcHs8rIcIaaq7fuoc8HKGcBbMvRrhDRHzDBBQArtx72gWZNzGNCEIMOaMbM6NQi1g5PI"
            "CXsixXq0uuUWE6Z5Mald7coWgf5cN0Lr3bXHHs7ZQZ6LFIXaKMAlmbGc1mAQ9JafsUK8LT7A9k/WwmCS"
            "8gZsE5JB5XVh4l8/Sm69P898aTPvsShBV4PhBbYySC7Th4KvT25F3WUS47uvHsn1fNrUuuhehDOZj3V9"
            "zBm+qb8qKEUdiK3EoJFqRyWd8Quomw5IX00l12x0TVaNNyI85NkAq3EUKXJZd2ogGx4v5ssYteTCdJCd"
            "N6oQMJEsIGCPL2SYKPDyUZvAezNwFWNN5WqCEonT4JPVPGp5PJj9h3taasUpHQOfKMp6efJs/PvG3QL8"
            "KVoj1+4FwYsI3aeqoI5nDjTzLcNwFuPR9Ub1AXaZW0StU1hzHtWtUU0jEagEDFL6KhrvqU1Ns9as+z70"
            "gRh/ykt1V35MBMaTr/8zV0QnEY2ucobvl/LJ9Gn3/DoiPIHDgK8D6rjT+HR/RxJNQJm4g1l9SHvB7Cjk"
            "HLWeOA2K70qxV4xQNZizDRQjLmBvBcLN5HSRap68PX5ddzOt/bxmx3F6FTq4akJlX9VfpO8a0az0rok/"
            "D+UxFXUmDVmkDvY1/xVp/oJmy0ZxKcxA47Q2/W36nlki81Traf0jDYFP2h0tB0/txstEuv4LmS+NtPWX"
            "FHLZk8u2+yl6rs34y6WJoxUf/9G4DUUxaD9My0EazUyfdqD/gjxeiYHiKkwwfQhhc0lSN0B7/VAUFKDR"
            "nniztpYljSJWrjXjZxLsQ7HnwGb03vxl2CPU3SKNn1FRoVjyzgF+iYbFz7KY2OzUIOE5covYsIm1FsMa"
            "dqnVf5d6vgWGOr4/IuzFGxfA4+lw0ZWzxktWp4pb9MlEkFB+6FVjByFVVMXOf1lpTwJ3+BvMcPVJ6ckq"
            "lb0AHAMXhvlI4hS5/rr68q9f4DjRAb2pKTVJislCl4b5tv+tFJImqt0nbo3ZrF9lfPt2MH3OIAjuNxNj"
            "wKVfE8ua/1pIXrheGT4tyBVd3ImIbayapAP9e1XncSeIQ/1t9NhOKR6oLUNsjzpOfhNxoesDdUdHFL4m"
            "ghzhKw8Ain1jamx/gJzG6utDUltlrcHK0SxIZKCstc7r+wZul6fyPEZMdniErK29RobbAAAAAAAAAAAA"
            "AAAACREaHygr"
        ),
    ),
}
